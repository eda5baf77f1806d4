use super::*;
use crate::stdx::Rng;

const MAX: usize = 1000;

fn framed(messages: &[&[u8]]) -> Vec<u8> {
    let mut out = vec![];
    for message in messages {
        frame(&mut out, |out| out.extend_from_slice(message));
    }
    out
}

fn drain(inbound: &mut Inbound, mut data: &[u8]) -> Result<Vec<Bytes>, Error> {
    let mut messages = vec![];
    while let Some(message) = inbound.next(&mut data)? {
        messages.push(message);
    }
    assert!(data.is_empty(), "without a message all data is used up");
    Ok(messages)
}

fn fault<T: std::fmt::Debug>(result: Result<T, Error>) -> (Code, String) {
    let error = result.unwrap_err();
    (error.code(), error.to_string())
}

#[test]
fn messages_survive_any_cutting() {
    let mut rng = Rng::new(1);
    for _ in 0..2_000 {
        let sent: Vec<Vec<u8>> = (0..rng.below(5))
            .map(|_| {
                (0..*rng.pick(&[0, 1, 4, 5, 6, 500, MAX as u64])).map(|_| rng.next_u64() as u8).collect()
            })
            .collect();
        let bytes = framed(&sent.iter().map(|m| &m[..]).collect::<Vec<_>>());
        let mut inbound = Inbound::new(CallKind::BidiStream, MAX, false);
        let (mut rest, mut got) = (&bytes[..], vec![]);
        while !rest.is_empty() {
            let (slice, later) = rest.split_at(1 + rng.below(rest.len().min(700) as u64) as usize);
            got.extend(drain(&mut inbound, slice).unwrap());
            rest = later;
        }
        assert_eq!(got, sent);
        assert_eq!(inbound.finish(), Ok(None));
    }
}

#[test]
fn a_unary_call_is_its_first_message_whatever_follows() {
    let mut inbound = Inbound::new(CallKind::Unary, MAX, false);
    let bytes = [framed(&[b"one"]), vec![9; 50]].concat();
    let mut data = &bytes[..];
    assert_eq!(inbound.next(&mut data), Ok(Some(Bytes::from_static(b"one"))));
    assert_eq!((inbound.next(&mut data), data), (Ok(None), &b""[..]));
    assert_eq!(inbound.finish(), Ok(None));
}

#[test]
fn missing_and_partial_messages_are_grpc_gos_errors() {
    let after = |kind, bytes: &[u8]| {
        let mut inbound = Inbound::new(kind, MAX, false);
        drain(&mut inbound, bytes).unwrap();
        fault(inbound.finish())
    };
    assert_eq!(after(CallKind::Unary, b""), (Code::Unknown, "EOF".into()));
    assert_eq!(after(CallKind::Unary, &[0, 0]), (Code::Unknown, "EOF".into()));
    assert_eq!(after(CallKind::Unary, &[0, 0, 0, 0, 2]), (Code::Unknown, "unexpected EOF".into()));
    assert_eq!(after(CallKind::Unary, &[0, 0, 0, 0, 2, 1]), (Code::Unknown, "unexpected EOF".into()));
    assert_eq!(after(CallKind::BidiStream, &[0, 0, 0, 0, 2, 1]), (Code::Internal, "unexpected EOF".into()));
    let text = "cardinality violation: received no request message from non-client-streaming RPC";
    assert_eq!(after(CallKind::ServerStream, b""), (Code::Internal, text.into()));
    assert_eq!(after(CallKind::ServerStream, &[0]), (Code::Internal, text.into()));
}

#[test]
fn a_server_stream_has_one_request_and_waits_for_the_end() {
    let mut inbound = Inbound::new(CallKind::ServerStream, MAX, false);
    assert_eq!(drain(&mut inbound, &framed(&[b"one"])), Ok(vec![]));
    assert_eq!(inbound.finish(), Ok(Some(Bytes::from_static(b"one"))));
    let mut inbound = Inbound::new(CallKind::ServerStream, MAX, false);
    let text = "cardinality violation: received multiple request messages for non-client-streaming RPC";
    assert_eq!(fault(drain(&mut inbound, &framed(&[b"one", b"two"]))), (Code::Internal, text.into()));
}

#[test]
fn a_prefix_is_judged_before_the_message_arrives() {
    let judge = |bytes: &[u8]| fault(drain(&mut Inbound::new(CallKind::Unary, MAX, false), bytes));
    let text = "grpc: received message larger than max (1001 vs. 1000)";
    assert_eq!(judge(&[0, 0, 0, 3, 0xE9]), (Code::ResourceExhausted, text.into()));
    assert_eq!(judge(&[1, 0xFF, 0, 0, 0]).0, Code::ResourceExhausted, "size comes before the flag");
    let text = "grpc: compressed flag set with identity or empty encoding";
    assert_eq!(judge(&[1, 0, 0, 0, 1]), (Code::Internal, text.into()));
    let text = "grpc: received unexpected payload format 2";
    assert_eq!(judge(&[2, 0, 0, 0, 1]), (Code::Internal, text.into()));
}

#[test]
fn memory_follows_the_bytes_not_the_promise() {
    let mut inbound = Inbound::new(CallKind::Unary, 1 << 30, false);
    drain(&mut inbound, &[0, 0x3F, 0, 0, 0, 1, 2, 3]).unwrap();
    let InboundState::Body { body, .. } = &inbound.state else { panic!("the prefix is complete") };
    assert!(body.capacity() <= MESSAGE_RESERVE_BYTES_MAX);
}

#[test]
fn random_bytes_never_panic() {
    let mut rng = Rng::new(3);
    for _ in 0..20_000 {
        let kind = *rng.pick(&[CallKind::Unary, CallKind::ServerStream, CallKind::BidiStream]);
        let mut inbound = Inbound::new(kind, MAX, false);
        let mut ended = false;
        while !ended && rng.chance(9, 10) {
            let data: Vec<u8> = (0..rng.below(9)).map(|_| rng.below(3) as u8).collect();
            ended = drain(&mut inbound, &data).is_err();
        }
        let _ = inbound.finish();
    }
}

#[test]
fn error_texts_are_percent_encoded() {
    assert_eq!(percent_encoded("etcdserver: key not found"), "etcdserver: key not found");
    assert!(matches!(percent_encoded("plain ~"), Cow::Borrowed(_)));
    assert_eq!(percent_encoded("100%\nü\u{7F}"), "100%25%0A%C3%BC%7F");
}

#[test]
fn status_numbers_are_the_codes() {
    assert_eq!(
        [status(Code::Ok), status(Code::Unimplemented), status(Code::Unauthenticated)],
        ["0", "12", "16"]
    );
}
