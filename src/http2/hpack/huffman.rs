//! The Huffman code of RFC 7541, appendix B.
//!
//! The code is canonical: sorted by (length, symbol), each code is its predecessor plus one, shifted where
//! the length grows. So the lengths alone define it, and the codes are counted out at compile time.
//! Decoding looks the next eight bits up in a table, which decides every code of up to eight bits (all of
//! lower case, digits and the usual punctuation); longer codes are found by comparing with the first code
//! of each length.

/// Bits of the code of each byte; the last is the end-of-string symbol.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28,
    28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6,
    6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7,
    8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7,
    15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24,
    23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23,
    23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26,
    26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20,
    21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27,
    27, 27, 26, 30,
];
const EOS: usize = 256;
const LENGTH_MAX: usize = 30;

/// The symbols in canonical order, and per length the first code and the place of its symbol.
struct Canon {
    symbols: [u16; 257],
    first_code: [u32; LENGTH_MAX + 2],
    first_place: [u16; LENGTH_MAX + 2],
}

const fn canon() -> Canon {
    let mut canon =
        Canon { symbols: [0; 257], first_code: [0; LENGTH_MAX + 2], first_place: [0; LENGTH_MAX + 2] };
    let (mut length, mut code, mut place) = (1, 0u32, 0u16);
    while length <= LENGTH_MAX {
        canon.first_code[length] = code;
        canon.first_place[length] = place;
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                canon.symbols[place as usize] = symbol as u16;
                place += 1;
                code += 1;
            }
            symbol += 1;
        }
        code <<= 1;
        length += 1;
    }
    canon.first_place[LENGTH_MAX + 1] = place;
    canon
}

const fn codes() -> [u32; 257] {
    let mut codes = [0; 257];
    let mut length = 1;
    while length <= LENGTH_MAX {
        let mut place = CANON.first_place[length];
        while place < CANON.first_place[length + 1] {
            codes[CANON.symbols[place as usize] as usize] =
                CANON.first_code[length] + (place - CANON.first_place[length]) as u32;
            place += 1;
        }
        length += 1;
    }
    codes
}

/// For each eight bits the symbol they begin with and its length; length 0 where the code is longer.
const fn short() -> [(u8, u8); 256] {
    let mut table = [(0, 0); 256];
    let mut symbol = 0;
    while symbol < 256 {
        let length = LENGTHS[symbol];
        if length <= 8 {
            let first = (CODES[symbol] as usize) << (8 - length);
            let mut low = 0;
            while low < 1 << (8 - length) {
                table[first + low] = (symbol as u8, length);
                low += 1;
            }
        }
        symbol += 1;
    }
    table
}

const CANON: Canon = canon();
const CODES: [u32; 257] = codes();
static SHORT: [(u8, u8); 256] = short();
static CANONICAL: Canon = CANON;
static CODE_OF: [u32; 257] = CODES;

/// The string is no Huffman code: it holds the end-of-string symbol or is padded with anything but fewer
/// than eight ones.
#[derive(Debug, PartialEq, Eq)]
pub struct NotHuffman;

/// Appends the decoded string to `out`. At most 8/5 of the coded length is written.
pub fn decode(coded: &[u8], out: &mut Vec<u8>) -> Result<(), NotHuffman> {
    out.reserve(coded.len() * 8 / 5 + 1);
    let (mut bits, mut count) = (0u64, 0u32); // the next bits stand at the top of `bits`
    let mut rest = coded;
    loop {
        while count <= 56
            && let Some((&byte, after)) = rest.split_first()
        {
            bits |= u64::from(byte) << (56 - count);
            count += 8;
            rest = after;
        }
        let (symbol, length) = match SHORT[(bits >> 56) as usize] {
            (_, 0) => long(bits),
            (symbol, length) => (usize::from(symbol), u32::from(length)),
        };
        if length > count {
            // What is left is shorter than the code it seems to begin: it must be padding.
            let ones = !0u64 << (64 - count).min(63);
            let padded = count == 0 || (count < 8 && bits & ones == ones);
            return if padded { Ok(()) } else { Err(NotHuffman) };
        }
        if symbol == EOS {
            return Err(NotHuffman);
        }
        out.push(symbol as u8);
        bits <<= length;
        count -= length;
    }
}

/// The symbol that begins at the top of `bits`, whose code is longer than eight bits, and its length.
fn long(bits: u64) -> (usize, u32) {
    for length in 9..=LENGTH_MAX {
        let code = (bits >> (64 - length)) as u32;
        let place = u32::from(CANONICAL.first_place[length]) + (code - CANONICAL.first_code[length]);
        if place < u32::from(CANONICAL.first_place[length + 1]) {
            return (usize::from(CANONICAL.symbols[place as usize]), length as u32);
        }
    }
    unreachable!("the code is complete: every 30 bits begin with a symbol")
}

/// The length of the coded string in bytes.
pub fn coded_len(plain: &[u8]) -> usize {
    let bits: usize = plain.iter().map(|&byte| usize::from(LENGTHS[usize::from(byte)])).sum();
    bits.div_ceil(8)
}

/// Appends the coded string to `out`.
pub fn encode(plain: &[u8], out: &mut Vec<u8>) {
    let (mut bits, mut count) = (0u64, 0u32);
    for &byte in plain {
        let length = u32::from(LENGTHS[usize::from(byte)]);
        bits = bits << length | u64::from(CODE_OF[usize::from(byte)]);
        count += length;
        while count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    if count > 0 {
        out.push((bits << (8 - count)) as u8 | (0xFF >> count));
    }
}
