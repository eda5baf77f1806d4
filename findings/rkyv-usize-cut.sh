#!/usr/bin/env bash
# rkyv archives a `usize` in 32 bits, and cuts larger ones without an error, on machines where both ends have 64.
#
# Versions: rkyv 0.8.18 with its default features.
# Behaviour: an archived usize is as wide as an archived pointer, by default 32 bits. to_bytes() of a value above
#   u32::MAX is Ok, the bytes pass validation, and from_bytes() is Ok with the low 32 bits. An offset into a file or
#   a count of bytes held as usize comes back as another one. The feature `pointer_width_64` cures it and changes
#   the format; so does a u64 in the struct.
# Seen:
#   usize 8589934592 came back as 0
#   usize 8589934599 came back as 7
#   u64 8589934592 came back as 8589934592
set -euo pipefail

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"

cat >Cargo.toml <<'END'
[package]
name = "finding"
edition = "2021"

[dependencies]
rkyv = "=0.8.18"
END
mkdir src
cat >src/main.rs <<'END'
use rkyv::rancor::Error;
use rkyv::{from_bytes, to_bytes, Archive, Deserialize, Serialize};

#[derive(Archive, Serialize, Deserialize)]
struct Extent {
    offset: usize,
    end: usize,
    bytes: u64,
}

fn main() {
    let extent = Extent { offset: 1 << 33, end: (1 << 33) + 7, bytes: 1 << 33 };
    let archived = to_bytes::<Error>(&extent).unwrap();
    let back = from_bytes::<Extent, Error>(&archived).unwrap();
    println!("usize {} came back as {}", extent.offset, back.offset);
    println!("usize {} came back as {}", extent.end, back.end);
    println!("u64 {} came back as {}", extent.bytes, back.bytes);
}
END
[ "$(getconf LONG_BIT)" = 64 ] || { echo "skipped: a usize has 32 bits here"; exit 0; }
nice cargo run --quiet --target-dir target >now
cat >then <<'END'
usize 8589934592 came back as 0
usize 8589934599 came back as 7
u64 8589934592 came back as 8589934592
END
cat now
diff then now || { echo "CHANGED: < is how it was, > how it is"; exit 1; }
