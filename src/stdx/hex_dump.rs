//! Bytes of files as text, for the golden bytes of formats.

/// Lines of 16 bytes, each with its place; those of zeros are left out.
#[cfg(test)]
pub fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (line, bytes) in bytes.chunks(16).enumerate().filter(|(_, bytes)| bytes.iter().any(|b| *b != 0)) {
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        text.push_str(&format!("{:05x} {}\n", line * 16, hex.join(" ")));
    }
    text
}

/// The file of this length whose [`dump`] this is.
#[cfg(test)]
pub fn read_dump(text: &str, bytes: usize) -> Vec<u8> {
    let mut bytes = vec![0; bytes];
    for line in text.lines() {
        let (at, hex) = line.split_once(' ').unwrap();
        let at = usize::from_str_radix(at, 16).unwrap();
        for (place, byte) in hex.split(' ').enumerate() {
            bytes[at + place] = u8::from_str_radix(byte, 16).unwrap();
        }
    }
    bytes
}
