//! Pictures, made rather than kept: a real PNG of any size in a few kilobytes, bands of grey.

use super::dice::Dice;

/// Wider or higher is more than any model makes.
const MAX_SIDE: u32 = 4096;
const HEIGHT_OF_A_BAND: u32 = 32;

/// An 8-bit greyscale PNG.
pub(super) fn png(width: u32, height: u32, dice: &mut Dice) -> Vec<u8> {
    let (width, height) = (width.clamp(1, MAX_SIDE), height.clamp(1, MAX_SIDE));
    let mut deflated = Bits::default();
    let mut adler = Adler::default();
    // A final block with fixed codes.
    deflated.low_first(0b011, 3);
    let mut grey = 0;
    for row in 0..height {
        if row % HEIGHT_OF_A_BAND == 0 {
            grey = dice.below(256) as u8;
        }
        add_row(&mut deflated, &mut adler, grey, width);
    }
    deflated.symbol(256);
    let mut data = vec![0x78, 0x01];
    data.extend(deflated.finish());
    data.extend(adler.sum().to_be_bytes());

    let header = [&width.to_be_bytes()[..], &height.to_be_bytes()[..], &[8, 0, 0, 0, 0]].concat();
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    for (name, content) in [(b"IHDR", &header), (b"IDAT", &data), (b"IEND", &Vec::new())] {
        add_chunk(&mut png, name, content);
    }
    png
}

fn add_chunk(png: &mut Vec<u8>, name: &[u8; 4], content: &[u8]) {
    png.extend((content.len() as u32).to_be_bytes());
    let start = png.len();
    png.extend(name);
    png.extend(content);
    let crc = crc32(png.get(start..).unwrap_or_default());
    png.extend(crc.to_be_bytes());
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

/// One row of one grey: the filter byte, the first pixel, and "the same again" for the rest.
fn add_row(deflated: &mut Bits, adler: &mut Adler, grey: u8, width: u32) {
    adler.add(0, 1);
    adler.add(grey, width);
    deflated.symbol(0);
    deflated.symbol(u16::from(grey));
    let mut left = width - 1;
    while left >= 3 {
        left -= deflated.repeat(left);
    }
    (0..left).for_each(|_| deflated.symbol(u16::from(grey)));
}

/// Lengths of a repetition: symbols 257 to 285, and how many bits follow each (RFC 1951, 3.2.5).
const LENGTHS: [u32; 29] =
    [3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258];
const EXTRA_BITS: [u32; 29] = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];

#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    pending: u32,
    count: u32,
}

struct Adler(u32, u32);

impl Bits {
    fn low_first(&mut self, bits: u32, count: u32) {
        self.pending |= bits << self.count;
        self.count += count;
        while self.count >= 8 {
            self.bytes.push(self.pending as u8);
            self.pending >>= 8;
            self.count -= 8;
        }
    }

    /// Codes are written from their highest bit on, all else from the lowest.
    fn code(&mut self, code: u32, length: u32) {
        self.low_first(code.reverse_bits() >> (32 - length), length);
    }

    /// A symbol in the fixed code (RFC 1951, 3.2.6).
    fn symbol(&mut self, symbol: u16) {
        let symbol = u32::from(symbol);
        match symbol {
            0..144 => self.code(0x30 + symbol, 8),
            144..256 => self.code(0x190 + symbol - 144, 9),
            256..280 => self.code(symbol - 256, 7),
            _ => self.code(0xc0 + symbol - 280, 8),
        }
    }

    /// Repeats the byte before, at most so often; says how often.
    fn repeat(&mut self, most: u32) -> u32 {
        let index = LENGTHS.partition_point(|length| *length <= most).saturating_sub(1);
        self.symbol(257 + index as u16);
        self.low_first(0, EXTRA_BITS[index]);
        self.code(0, 5);
        LENGTHS[index]
    }

    fn finish(mut self) -> Vec<u8> {
        self.low_first(0, 7);
        self.bytes
    }
}

impl Default for Adler {
    fn default() -> Self {
        Self(1, 0)
    }
}

impl Adler {
    /// The same byte so many times.
    fn add(&mut self, byte: u8, times: u32) {
        const MODULUS: u64 = 65_521;
        let (byte, times) = (u64::from(byte), u64::from(times));
        let second = u64::from(self.1) + times * u64::from(self.0) + byte * (times * (times + 1) / 2);
        self.0 = ((u64::from(self.0) + byte * times) % MODULUS) as u32;
        self.1 = (second % MODULUS) as u32;
    }

    fn sum(&self) -> u32 {
        self.1 << 16 | self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_its_size_and_few_bytes() {
        for (width, height) in [(1, 1), (1024, 1024), (1280, 720), (1120, 1120)] {
            let png = png(width, height, &mut Dice::new(3));
            let size = imagesize::blob_size(&png).unwrap();
            assert_eq!((size.width, size.height), (width as usize, height as usize));
            assert!(png.len() < 16_000, "{} bytes", png.len());
        }
    }

    #[test]
    fn many_bytes_at_once_sum_up_as_one_by_one() {
        let (mut at_once, mut one_by_one) = (Adler::default(), Adler::default());
        at_once.add(200, 4096);
        (0..4096).for_each(|_| one_by_one.add(200, 1));
        assert_eq!(at_once.sum(), one_by_one.sum());
    }

    #[test]
    fn the_checksum_is_the_one_of_the_standard() {
        assert_eq!(crc32(b"IEND"), 0xae42_6082);
    }
}
