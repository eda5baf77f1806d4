use super::*;
use crate::http2::head::Head;
use crate::stdx::Rng;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

/// The fields of a head by name and value, whatever their order.
fn fields(head: &Head) -> String {
    format!("{head:?}")
}

fn decoded(decoder: &mut Decoder, block: &str) -> String {
    let mut head = Head::default();
    decoder.decode(&hex(block), &mut head).expect("the vector is well formed");
    fields(&head)
}

fn wanted(pairs: &[(&str, &str)]) -> String {
    let mut encoder = Encoder::new(0);
    let (mut block, mut head) = (Vec::new(), Head::default());
    for (name, value) in pairs {
        encoder.field(&mut block, name.as_bytes(), value.as_bytes(), Indexing::Without);
    }
    Decoder::new(0).decode(&block, &mut head).unwrap();
    fields(&head)
}

fn check(size: usize, rounds: &[(&str, &[(&str, &str)])]) {
    let mut decoder = Decoder::new(size);
    for (block, pairs) in rounds {
        assert_eq!(decoded(&mut decoder, block), wanted(pairs));
    }
}

const FIRST: &[(&str, &str)] =
    &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];
const SECOND: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "www.example.com"),
    ("cache-control", "no-cache"),
];
const THIRD: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "https"),
    (":path", "/index.html"),
    (":authority", "www.example.com"),
    ("custom-key", "custom-value"),
];
const RESPONSE_1: &[(&str, &str)] = &[
    (":status", "302"),
    ("cache-control", "private"),
    ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
    ("location", "https://www.example.com"),
];
const RESPONSE_2: &[(&str, &str)] = &[
    (":status", "307"),
    ("cache-control", "private"),
    ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
    ("location", "https://www.example.com"),
];
const RESPONSE_3: &[(&str, &str)] = &[
    (":status", "200"),
    ("cache-control", "private"),
    ("date", "Mon, 21 Oct 2013 20:13:22 GMT"),
    ("location", "https://www.example.com"),
    ("content-encoding", "gzip"),
    ("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
];

#[test]
fn rfc7541_c2_single_fields() {
    check(
        4096,
        &[("400a637573746f6d2d6b65790d637573746f6d2d686561646572", &[("custom-key", "custom-header")])],
    );
    check(4096, &[("040c2f73616d706c652f70617468", &[(":path", "/sample/path")])]);
    check(4096, &[("100870617373776f726406736563726574", &[("password", "secret")])]);
    check(4096, &[("82", &[(":method", "GET")])]);
}

#[test]
fn rfc7541_c3_requests_without_huffman() {
    check(
        4096,
        &[
            ("828684410f7777772e6578616d706c652e636f6d", FIRST),
            ("828684be58086e6f2d6361636865", SECOND),
            ("828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565", THIRD),
        ],
    );
}

#[test]
fn rfc7541_c4_requests_with_huffman() {
    check(
        4096,
        &[
            ("828684418cf1e3c2e5f23a6ba0ab90f4ff", FIRST),
            ("828684be5886a8eb10649cbf", SECOND),
            ("828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf", THIRD),
        ],
    );
}

#[test]
fn rfc7541_c5_responses_evict_from_a_small_table() {
    check(
        256,
        &[
            (
                "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768747470733a2f2f7777772e6578616d706c652e636f6d",
                RESPONSE_1,
            ),
            ("4803333037c1c0bf", RESPONSE_2),
            (
                "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31",
                RESPONSE_3,
            ),
        ],
    );
}

#[test]
fn rfc7541_c6_responses_with_huffman() {
    check(
        256,
        &[
            (
                "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
                RESPONSE_1,
            ),
            ("4883640effc1c0bf", RESPONSE_2),
            (
                "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
                RESPONSE_3,
            ),
        ],
    );
}

#[test]
fn what_breaks_rfc7541_is_refused() {
    for (block, why) in [
        ("80", "index 0"),
        ("be", "index beyond both tables"),
        ("ff", "integer without end"),
        ("ffffffffffffff00", "integer too large"),
        ("400a6375", "string longer than the block"),
        ("3fe21f", "table larger than allowed"),
        ("8220", "table resized after a field"),
        ("008361ff", "string cut"),
        ("0085f2b24a84ff874951fffffffa7f", "end-of-string inside"),
        ("0085f2b24a84ff8449509fff", "padding of more than seven bits"),
        ("0085f2b24a84ff83495090", "padding of zeros"),
    ] {
        let mut head = Head::default();
        assert_eq!(Decoder::new(4096).decode(&hex(block), &mut head), Err(CompressionError), "{why}");
    }
}

#[test]
fn huffman_gives_back_what_it_took_and_refuses_bad_padding() {
    let mut rng = Rng::new(1);
    for round in 0..2000 {
        let len = rng.below(60);
        let plain: Vec<u8> = (0..len)
            .map(|_| if round % 2 == 0 { rng.next_u64() as u8 } else { b'a' + rng.below(26) as u8 })
            .collect();
        let (mut coded, mut back) = (Vec::new(), Vec::new());
        huffman::encode(&plain, &mut coded);
        assert_eq!(coded.len(), huffman::coded_len(&plain));
        huffman::decode(&coded, &mut back).unwrap();
        assert_eq!(back, plain);
        // One more octet of ones is padding of eight bits or more.
        coded.push(0xFF);
        assert_eq!(huffman::decode(&coded, &mut back), Err(huffman::NotHuffman));
    }
}

#[test]
fn encoder_and_decoder_keep_equal_tables_through_churn_and_resizing() {
    let mut rng = Rng::new(2);
    for size in [0, 60, 104, 300, 4096] {
        let mut encoder = Encoder::new(4096);
        encoder.limit(size);
        let mut decoder = Decoder::new(4096);
        for round in 0..500 {
            if round % 50 == 49 {
                encoder.limit(rng.below(5000) as usize);
                encoder.limit(rng.below(5000) as usize);
            }
            let (mut block, mut plain, mut head, mut want) =
                (vec![], vec![], Head::default(), Head::default());
            encoder.begin(&mut block);
            for _ in 0..rng.below(6) {
                let name = format!("name-{}", rng.below(12));
                let value = "v".repeat(rng.below(80) as usize) + &rng.below(4).to_string();
                let indexing = if rng.chance(1, 2) { Indexing::Enter } else { Indexing::Without };
                encoder.field(&mut block, name.as_bytes(), value.as_bytes(), indexing);
                Encoder::new(0).field(&mut plain, name.as_bytes(), value.as_bytes(), Indexing::Without);
            }
            let before = decoder.generation();
            let indexed = decoder.decode(&block, &mut head).unwrap();
            Decoder::new(0).decode(&plain, &mut want).unwrap();
            assert_eq!(fields(&head), fields(&want));
            assert!(!indexed || decoder.generation() == before, "a block of indices leaves the table alone");
        }
    }
}
