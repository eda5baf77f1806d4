//! One member: its process, and what can be seen of it from outside.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a member may take to say whether it leads: one without a leader may say nothing.
const ANSWER_WITHIN: Duration = Duration::from_millis(300);
/// How long a member may take to stop before it is killed: longer than its own bound.
const STOP_WITHIN: Duration = Duration::from_secs(15);

/// Where a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub name: String,
    pub client: SocketAddr,
    pub peer: SocketAddr,
}

/// The places of so many members, from a port on.
pub fn places(members: u16, port: u16) -> Vec<Place> {
    let place = |at: u16| {
        let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Place {
            name: format!("m{}", at + 1),
            client: address(port + 2 * at),
            peer: address(port + 2 * at + 1),
        }
    };
    (0..members).map(place).collect()
}

/// The arguments of a member, in etcd's own flags.
pub fn arguments(place: &Place, all: &[Place], data_dir: &Path, flags: &[String]) -> Vec<String> {
    let url = |address: SocketAddr| format!("http://{address}");
    let cluster: Vec<String> =
        all.iter().map(|place| format!("{}={}", place.name, url(place.peer))).collect();
    let mut arguments = vec![
        format!("--name={}", place.name),
        format!("--data-dir={}", data_dir.display()),
        format!("--listen-client-urls={}", url(place.client)),
        format!("--advertise-client-urls={}", url(place.client)),
        format!("--listen-peer-urls={}", url(place.peer)),
        format!("--initial-advertise-peer-urls={}", url(place.peer)),
        format!("--initial-cluster={}", cluster.join(",")),
        "--initial-cluster-state=new".to_owned(),
    ];
    arguments.extend_from_slice(flags);
    arguments
}

pub struct Member {
    pub place: Place,
    pub log: PathBuf,
    /// As a person would type it.
    pub command: String,
    child: Child,
    pub ended: Option<ExitStatus>,
}

impl Member {
    pub fn start(binary: &Path, place: Place, arguments: &[String], directory: &Path) -> Result<Member> {
        let log = directory.join(format!("{}.log", place.name));
        let file = File::options().create(true).append(true).open(&log)?;
        let mut command = Command::new(binary);
        command.args(arguments).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        // Ctrl-C is for this program, which then stops the members.
        command.process_group(0);
        let started = command.spawn();
        let child =
            started.map_err(|error| Error::new(error.kind(), format!("{}: {error}", binary.display())))?;
        let command = format!("{} {}", binary.display(), arguments.join(" "));
        Ok(Member { place, log, command, child, ended: None })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its end, once.
    pub fn look(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
            return Ok(self.ended);
        }
        Ok(None)
    }

    /// Whether it says that it leads, if it says anything.
    pub fn leads(&self) -> Option<bool> {
        let page = get(self.place.client, "/metrics").ok()?;
        let value = page.lines().find_map(|line| line.strip_prefix("etcd_server_is_leader "))?;
        Some(value.trim() == "1")
    }

    /// Asks it to stop.
    pub fn ask_to_stop(&self) {
        if self.ended.is_none() {
            // The process is this one's child and not waited for, so the number is still its own.
            let _ = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status();
        }
    }

    /// Waits for its end, which it was asked for; kills it where it takes too long. Returns whether it has stopped
    /// by itself.
    pub fn await_end(&mut self) -> Result<bool> {
        let begun = Instant::now();
        while self.ended.is_none() {
            self.look()?;
            if begun.elapsed() > STOP_WITHIN {
                self.child.kill()?;
                self.ended = Some(self.child.wait()?);
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(true)
    }

    /// The last lines of its log.
    pub fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let mut lines: Vec<&str> = log.lines().rev().take(3).collect();
        lines.reverse();
        lines.join("\n")
    }
}

impl Drop for Member {
    /// A program that ends in any other way than by stopping them leaves no member behind.
    fn drop(&mut self) {
        if self.ended.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The body of a page.
fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    body.ok_or_else(|| ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufRead;
    use std::net::TcpListener;

    #[test]
    fn members_name_each_other() {
        let all = places(3, 2379);
        assert_eq!(all[2].client.to_string(), "127.0.0.1:2383");
        let flags = ["--shards=4".to_owned()];
        let arguments = arguments(&all[1], &all, Path::new("d/m2"), &flags).join(" ");
        assert_eq!(
            arguments,
            "--name=m2 --data-dir=d/m2 --listen-client-urls=http://127.0.0.1:2381 \
             --advertise-client-urls=http://127.0.0.1:2381 --listen-peer-urls=http://127.0.0.1:2382 \
             --initial-advertise-peer-urls=http://127.0.0.1:2382 \
             --initial-cluster=m1=http://127.0.0.1:2380,m2=http://127.0.0.1:2382,m3=http://127.0.0.1:2384 \
             --initial-cluster-state=new --shards=4"
        );
    }

    fn member(program: &str, arguments: &[&str], client: SocketAddr, directory: &Path) -> Member {
        let place = Place { name: "m1".into(), client, peer: client };
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        Member::start(Path::new(program), place, &arguments, directory).unwrap()
    }

    #[test]
    fn what_a_member_says_of_itself_is_read_from_its_metrics() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let directory = tempfile::tempdir().unwrap();
        let member = member("sleep", &["60"], listener.local_addr().unwrap(), directory.path());
        let answers = ["x 1\netcd_server_is_leader 1\n", "etcd_server_is_leader 0\n", "nothing\n"];
        let serve = std::thread::spawn(move || {
            for body in answers {
                let (mut stream, _) = listener.accept().unwrap();
                // All of it: a connection closed over bytes nobody has read is reset, and its answer with it.
                let lines = std::io::BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
                let request: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                assert_eq!(request[0], "GET /metrics HTTP/1.1");
                write!(stream, "HTTP/1.1 200 OK\r\n\r\n{body}").unwrap();
            }
        });
        assert_eq!([member.leads(), member.leads(), member.leads()], [Some(true), Some(false), None]);
        serve.join().unwrap();
        assert_eq!(member.leads(), None, "nobody listens any more");
    }

    #[test]
    fn a_member_that_is_asked_stops_and_one_that_ends_is_noticed_once() {
        let (directory, nobody) = (tempfile::tempdir().unwrap(), SocketAddr::from(([127, 0, 0, 1], 9)));
        let mut stops = member("sleep", &["60"], nobody, directory.path());
        assert_eq!(stops.look().unwrap(), None);
        stops.ask_to_stop();
        assert!(stops.await_end().unwrap());
        let mut ends = member("sh", &["-c", "echo why; exit 3"], nobody, directory.path());
        assert!(ends.await_end().unwrap());
        assert_eq!((ends.ended.and_then(|status| status.code()), ends.look().unwrap()), (Some(3), None));
        assert_eq!(ends.last_words(), "why");
        assert_eq!(ends.command, "sh -c echo why; exit 3");
    }
}
