//! The program under the system calls that tools/seccomp.json allows, as a container's runtime confines it.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use super::client::Client;
use braid::wire::Method;
use braid::wire::proto;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Error, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const READY_MAX: Duration = Duration::from_secs(60);
/// Where the kernel shows a filter the call's number and the lower half of its first argument (`seccomp_data`).
const NUMBER_AT: u32 = 0;
const FIRST_ARGUMENT_AT: u32 = 16;

/// The numbers of system calls on this machine, from the headers of the compiler that glommio is built with.
fn numbers() -> BTreeMap<String, u32> {
    let mut compiler = Command::new("cc");
    compiler.args(["-dM", "-E", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut compiler = compiler.spawn().unwrap();
    compiler.stdin.take().unwrap().write_all(b"#include <sys/syscall.h>\n").unwrap();
    let output = compiler.wait_with_output().unwrap();
    let macros = String::from_utf8(output.stdout).unwrap();
    let number = |line: &str| {
        let (name, number) = line.strip_prefix("#define __NR_")?.split_once(' ')?;
        Some((name.to_owned(), number.parse().ok()?))
    };
    macros.lines().filter_map(number).collect()
}

fn step(code: u32, k: u32, if_true: u8, if_false: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: if_true, jf: if_false, k }
}

/// The profile as a filter of the kernel's.
fn filter(profile: &Value, numbers: &BTreeMap<String, u32>) -> Vec<libc::sock_filter> {
    let load = |at| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at, 0, 0);
    let equal = |k, if_false| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, k, 0, if_false);
    let end = |action| step(libc::BPF_RET | libc::BPF_K, action, 0, 0);
    let word = |value: &Value| u32::try_from(value.as_u64().unwrap()).unwrap();
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    let refuse = end(libc::SECCOMP_RET_ERRNO | word(&profile["defaultErrnoRet"]));
    let mut steps = vec![load(NUMBER_AT)];
    for rule in profile["syscalls"].as_array().unwrap() {
        assert_eq!(rule["action"], "SCMP_ACT_ALLOW", "{rule}");
        for name in rule["names"].as_array().unwrap() {
            // Some are of other architectures.
            let Some(&number) = numbers.get(name.as_str().unwrap()) else { continue };
            let Some(condition) = rule["args"].get(0) else {
                steps.extend([equal(number, 1), end(libc::SECCOMP_RET_ALLOW)]);
                continue;
            };
            let known = (&condition["index"], &condition["op"]);
            assert_eq!(known, (&Value::from(0), &Value::from("SCMP_CMP_MASKED_EQ")), "{rule}");
            let mask = step(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, word(&condition["value"]), 0, 0);
            let wanted = equal(word(&condition["valueTwo"]), 1);
            steps.extend([
                equal(number, 5),
                load(FIRST_ARGUMENT_AT),
                mask,
                wanted,
                end(libc::SECCOMP_RET_ALLOW),
                refuse,
            ]);
        }
    }
    steps.push(refuse);
    steps
}

/// Lets the program begin under the filter.
#[allow(unsafe_code)] // std has no safe way to filter a child's system calls
fn confine(command: &mut Command, steps: Vec<libc::sock_filter>) {
    let set = move || {
        let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_ptr().cast_mut() };
        let pointer = &raw const program;
        // SAFETY: the kernel copies the program, which lives until the calls return.
        let codes = unsafe {
            [
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
                libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, pointer, 0, 0),
            ]
        };
        if codes == [0, 0] { Ok(()) } else { Err(Error::last_os_error()) }
    };
    // SAFETY: the closure makes two system calls and allocates nothing.
    unsafe { command.pre_exec(set) };
}

fn await_listening(child: &mut Child, address: SocketAddr) {
    let begun = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(child.try_wait().unwrap().is_none(), "the server has ended");
        assert!(begun.elapsed() < READY_MAX, "the server does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn it_serves_under_the_containers_profile() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/seccomp.json");
    let profile: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let steps = filter(&profile, &numbers());
    let directory = tempfile::tempdir().unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{address}");
    // The second start reads what the first has written.
    for round in 1..3 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_braid"));
        command.arg("--data-dir").arg(directory.path()).args(["--reactors=2", "--listen-client-urls", &url]);
        command.args(["--advertise-client-urls", &url, "--listen-peer-urls=http://127.0.0.1:0"]).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        confine(&mut command, steps.clone());
        let mut child = command.spawn().unwrap();
        await_listening(&mut child, address);
        let mut client = Client::connect(address);
        let put = proto::PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
        let _: proto::PutResponse = client.call(Method::Put, &put);
        let range = proto::RangeRequest { key: "k".into(), ..Default::default() };
        let got: proto::RangeResponse = client.call(Method::Range, &range);
        assert_eq!(got.kvs[0].version, round);
        let _: proto::DefragmentResponse =
            client.call(Method::Defragment, &proto::DefragmentRequest::default());
        let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        assert_eq!(child.wait().unwrap().signal(), Some(15));
    }
}
