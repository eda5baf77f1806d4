use crate::listed::{Listed, Occurrences};
use crate::message::{encode, show};
use crate::names::Names;
use crate::schema::Schema;
use crate::transcript::{Item, Transcript, differences};

fn shown_again(message: &str, text: &str) -> Vec<String> {
    let (schema, mut names) = (Schema::load(), Names::default());
    let bytes = encode(&schema, &mut names, message, text, 0).unwrap();
    show(&schema, &mut names, message, &bytes)
}

#[test]
fn a_message_reads_back_as_it_was_written() {
    let texts = [
        ("RangeRequest", r#"key:"a\x00\"" limit:-1 sort_order:DESCEND serializable:true"#),
        ("TxnRequest", r#"compare:{target:VALUE key:"k" value:"v"} success:{request_put:{key:"k" lease:7}}"#),
        ("PutRequest", r#"key:"a" value:"x"*1000000"#),
    ];
    for (message, text) in texts {
        assert_eq!(shown_again(message, text).join(" "), text);
    }
    assert_eq!(shown_again("RangeRequest", "sort_target:77 limit:0"), ["sort_target:77"]);
}

#[test]
fn an_index_reaches_into_strings_and_numbers() {
    let txn = shown_again("TxnRequest", r#"success*2:{request_put:{key:"k{i:2}" lease:$i}}"#);
    let wanted = [
        r#"success:{request_put:{key:"k01" lease:$lease1}}"#,
        r#"success:{request_put:{key:"k02" lease:$lease2}}"#,
    ];
    assert_eq!(txn, wanted);
}

#[test]
fn errors_in_a_request_are_told_not_sent() {
    let (schema, mut names) = (Schema::load(), Names::default());
    for text in ["nokey:1", r#"key:"a"#, "limit:many", r#"key:"a"} limit:1"#, "limit:$unknown"] {
        assert!(encode(&schema, &mut names, "RangeRequest", text, 0).is_err(), "{text}");
    }
}

#[test]
fn masks_hide_values_but_not_their_equality() {
    let mut names = Names::default();
    assert_eq!(names.show("member", "123456789012"), "$member");
    assert_eq!(names.show("member", "5"), "$member2");
    assert_eq!(names.show("member", "123456789012"), "$member");
    assert_eq!(names.replace_in("memberID:123456789012"), "memberID:$member");
    names.written(Some("lease"), "42");
    assert_eq!(names.show("lease", "42"), "42");
    assert_eq!(names.show("lease", "43"), "$lease1");
    assert_eq!(names.value("$lease1"), Some("43"));
    assert_eq!((names.show("ttl", "9"), names.show("ttl", "-1")), ("$ttl".into(), "-1".into()));
}

#[test]
fn bytes_that_are_no_message_are_shown_as_such() {
    let (schema, mut names) = (Schema::load(), Names::default());
    assert_eq!(
        show(&schema, &mut names, "RangeRequest", b"\x0a\x05a"),
        ["not a RangeRequest: \"\\x0a\\x05a\""].map(|line| line.replace("\\x0a", "\\n"))
    );
    assert_eq!(show(&schema, &mut names, "RangeRequest", b"\xf8\x3f\x01"), ["?1023:1"]);
}

#[test]
fn a_transcript_prints_as_it_was_parsed() {
    let text = "flags: --a=b\nmembers: 3\n\n# Comment.\nKV.Put key:\"a\"\n  value:\"1\"\n----\nheader:{}\n\nopen w Watch.Watch\nrecv w\n----\nnothing\n";
    let transcript = Transcript::parse(text);
    assert_eq!((transcript.print(), transcript.members), (text.to_string(), 3));
    let steps: Vec<String> = transcript
        .items
        .iter()
        .filter_map(|item| if let Item::Step(step) = item { Some(step.request()) } else { None })
        .collect();
    assert_eq!(steps, ["KV.Put key:\"a\" value:\"1\"", "open w Watch.Watch", "recv w"]);
}

#[test]
fn differences_keep_what_is_common() {
    let lines = |text: &str| text.split(' ').map(str::to_string).collect::<Vec<_>>();
    assert_eq!(differences(&lines("a b c"), &lines("a x c")), ["    a", "  - b", "  + x", "    c"]);
    assert_eq!(differences(&lines("a"), &lines("a b")), ["    a", "  + b"]);
}

#[test]
fn a_list_of_differences_is_exact() {
    let text = "# Chosen.\na.txt: KV.Put key:\"a\" (2)\n  Why.\nnot yet b.txt: *\n  Not built.\n";
    let listed = Listed::parse(text).unwrap();
    let mut occurrences = Occurrences::default();
    let first = occurrences.step("KV.Put key:\"a\"");
    let second = occurrences.step("KV.Put key:\"a\"");
    assert_eq!(listed.faults("a.txt", std::slice::from_ref(&second)), [""; 0]);
    assert_eq!(
        listed.faults("a.txt", std::slice::from_ref(&first)),
        ["not listed: KV.Put key:\"a\" (1)", "listed, and does not differ: a.txt: KV.Put key:\"a\" (2)"]
    );
    assert_eq!(listed.faults("b.txt", &[first, second]), [""; 0]);
    assert_eq!(listed.faults("b.txt", &[]), ["listed, and does not differ: not yet b.txt: *"]);
    assert_eq!(listed.faults("c.txt", &[]), [""; 0]);
    assert!(Listed::parse("a.txt: KV.Put\n").is_err(), "a reason is part of an entry");
    assert!(Listed::parse("KV.Put\n  Why.\n").is_err());
}

#[test]
fn arguments_are_read_whole_or_refused() {
    let read = |line: &str| crate::parse(line.split_whitespace().map(str::to_string));
    for right in ["--server a:1 --out x", "--spawn cmd --against --differences d x y"] {
        assert!(matches!(read(right), Ok(crate::Parsed::Run(_))), "{right}");
    }
    for help in ["--help", "--server a:1 -h"] {
        assert!(matches!(read(help), Ok(crate::Parsed::Help)), "{help}");
    }
    for wrong in [
        "",
        "x",
        "--server a:1 x",
        "--out x",
        "--server a:1 --out",
        "--server a:1 --spawn c --out x",
        "--server a:1 --out --against x",
        "--server a:1 --out --verbose x",
        "--out x --server",
    ] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}
