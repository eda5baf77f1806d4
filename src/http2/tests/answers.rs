use super::*;
use crate::http2::grpc::{GrpcMessage, MessageTooLong, Messages, percent_decoded, percent_encoded, prefix};
use crate::stdx::Rng;

fn coded(messages: &[Vec<u8>]) -> Vec<u8> {
    messages.iter().flat_map(|message| [&prefix(message.len())[..], message].concat()).collect()
}

#[test]
fn messages_come_out_whole_however_the_body_is_cut() {
    let mut rng = Rng::new(3);
    for _ in 0..300 {
        let wanted: Vec<Vec<u8>> = (0..rng.below(6)).map(|n| vec![n as u8; rng.below(50) as usize]).collect();
        let body = coded(&wanted);
        let (mut messages, mut got, mut at) = (Messages::default(), vec![], 0);
        while at < body.len() {
            let end = (at + 1 + rng.below(30) as usize).min(body.len());
            let mut piece = &body[at..end];
            while let Some(GrpcMessage { compressed, bytes }) = messages.read(&mut piece, 50).unwrap() {
                assert!(!compressed);
                got.push(bytes.to_vec());
            }
            assert!(piece.is_empty());
            at = end;
        }
        assert!(messages.is_complete());
        assert_eq!(got, wanted);
    }
}

#[test]
fn a_message_longer_than_allowed_is_refused_before_it_is_stored() {
    let body = coded(&[vec![1; 10], vec![2; 11]]);
    let (mut messages, mut rest) = (Messages::default(), &body[..]);
    assert_eq!(messages.read(&mut rest, 10).unwrap().unwrap().bytes, [1; 10]);
    assert_eq!(messages.read(&mut rest, 10), Err(MessageTooLong { len: 11, max: 10 }));
    let mut cut = Messages::default();
    assert_eq!(cut.read(&mut &body[15..18], 10), Ok(None));
    assert!(!cut.is_complete());
    assert_eq!(cut.read(&mut &body[18..], 10), Err(MessageTooLong { len: 11, max: 10 }));
    assert!(cut.kept_bytes() <= 5);
}

#[test]
fn status_texts_survive_their_coding() {
    for text in
        ["", "plain", "100 %", "naïve\n", "etcdserver: mvcc: required revision has been compacted", "%41"]
    {
        let coded = percent_encoded(text);
        assert!(coded.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        assert_eq!(percent_decoded(coded.as_bytes()), text);
    }
    assert_eq!(percent_encoded("a%\u{e9}"), "a%25%C3%A9");
    assert_eq!(percent_decoded(b"50%, %4"), "50%, %4");
}

#[test]
fn an_error_without_a_head_is_head_and_trailers_in_one() {
    let mut bench = Bench::new();
    let stream = bench.open(1, true);
    bench.server.send_trailers(stream, 14, "etcdserver: no leader");
    let frames = bench.frames();
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0].0.flags, flag::END_HEADERS | flag::END_STREAM);
    let mut head = Head::default();
    hpack::Decoder::new(4096).decode(&frames[0].1, &mut head).unwrap();
    assert!(head.is_response());
    assert_eq!((head.status(), head.grpc_status()), (Some(200), Some(14)));
    assert_eq!(head.get(FieldName::ContentType), Some(&b"application/grpc"[..]));
    assert_eq!(head.get(FieldName::GrpcMessage), Some(&b"etcdserver: no leader"[..]));
}

#[test]
fn an_answer_before_the_request_ended_tells_the_client_to_stop() {
    let mut bench = Bench::new();
    let stream = bench.open(1, false);
    bench.server.send_trailers(stream, 7, "denied");
    let sent = bench.sent();
    assert_eq!((sent[0].0, sent[1].0), (kind::HEADERS, kind::RST_STREAM));
    assert_eq!(bench.feed_frame(kind::DATA, 0, 1, b"late"), Ok(vec![]));
    assert_eq!(bench.server.streams_len(), 0);
}

#[test]
fn a_head_of_plain_http_carries_its_fields() {
    let mut bench = Bench::new();
    let stream = bench.open(1, true);
    let fields: [(&[u8], &[u8]); 1] = [(b"content-type", b"text/plain")];
    bench.server.send_head(stream, 415, &fields, false);
    bench.server.send_data(stream, b"no", true);
    let frames = bench.frames();
    let mut head = Head::default();
    hpack::Decoder::new(4096).decode(&frames[0].1, &mut head).unwrap();
    assert_eq!(head.status(), Some(415));
    assert_eq!(
        (frames[1].0.kind, frames[1].0.flags, &frames[1].1[..]),
        (kind::DATA, flag::END_STREAM, &b"no"[..])
    );
}

#[test]
fn a_client_that_wants_no_table_gets_answers_without_one() {
    for sizes in [&[0][..], &[0, 4096], &[100], &[104], &[65_536]] {
        let mut bench = Bench::new();
        let mut decoder = hpack::Decoder::new(65_536);
        for round in 0..6 {
            if round == 2 {
                for size in sizes {
                    let payload = [0, 1, 0, (size >> 16) as u8, (size >> 8) as u8, *size as u8];
                    bench.feed_frame(kind::SETTINGS, 0, 0, &payload).unwrap();
                }
            }
            let stream = bench.open(1 + 2 * round, true);
            bench.server.reply(stream, 0, |_| ());
            let heads: Vec<_> =
                bench.frames().into_iter().filter(|(head, _)| head.kind == kind::HEADERS).collect();
            let mut head = Head::default();
            decoder.decode(&heads[0].1, &mut head).unwrap();
            assert_eq!(head.get(FieldName::ContentType), Some(&b"application/grpc"[..]));
            assert_eq!(head.status(), Some(200));
            decoder.decode(&heads[1].1, &mut head).unwrap();
            assert_eq!(head.grpc_status(), Some(0));
            if round == 2 && sizes[0] < 4096 {
                assert_eq!(heads[0].1[0] & 0xE0, 0x20, "a smaller table is announced");
            }
        }
    }
}
