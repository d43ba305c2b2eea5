//! AES-GCM, the sealing half (NIST SP 800-38D), for processors with AES-NI and PCLMULQDQ.
//!
//! For a library the way to its code, and the tables it copies on that way, cost as much as half a packet.
//! Here a key is a few cache lines and a packet one pass: while a batch of eight counters goes through the
//! rounds, the batch before is hashed, all of it with one reduction. The first batch holds the block that
//! masks the tag, so no packet waits for that one.
//!
//! Bytes are hashed in reverse, and powers of the hash key stand multiplied by x, which spares a shift for
//! each product. Nothing is looked up, and nothing branches, by what is secret.
//!
//! Left out: opening, nonces of other lengths than 96 bits, tags of other lengths than 128.

#[cfg(test)]
mod tests;

use std::arch::x86_64::*;

use zeroize::{Zeroize, Zeroizing};

use crate::prefetch;

use super::SrtpError;

/// Bytes that sealing adds.
pub(super) const TAG: usize = 16;
const BLOCK: usize = 16;
/// Blocks that go through the rounds together: twice as many as hide how long a round takes, so that there is
/// time for the hash.
const BATCH: usize = 8;
/// Of the first batch one counter belongs to nothing, and one to the tag.
const HEAD: usize = BATCH - 2;
/// For a last batch and the block of the lengths.
const POWERS: usize = BATCH + 1;

/// A key of 128 or 256 bits, for a processor that has what sealing takes.
pub(super) struct Key(Box<Schedule<[__m128i]>>);

/// Powers of the hash key, the first one first, and 11 or 15 round keys: either way whole cache lines.
#[repr(C, align(64))]
struct Schedule<Rounds: ?Sized> {
    powers: [__m128i; POWERS],
    rounds: Rounds,
}

/// Whether this is the faster way here: not where a library can encrypt four blocks with one instruction.
pub(super) fn is_faster() -> bool {
    !(is_x86_feature_detected!("vaes") && is_x86_feature_detected!("avx512f"))
}

impl Key {
    /// `None` where the processor lacks what this takes, or if `key` has another length than 16 or 32.
    pub(super) fn new(key: &[u8]) -> Option<Self> {
        let able = is_x86_feature_detected!("aes")
            && is_x86_feature_detected!("pclmulqdq")
            && is_x86_feature_detected!("ssse3")
            && is_x86_feature_detected!("sse4.1")
            && is_x86_feature_detected!("avx");
        match key.len() {
            // SAFETY: the features that it enables were detected.
            16 if able => Some(Self(unsafe { Schedule::<[__m128i; 11]>::new(key) })),
            // SAFETY: as above.
            32 if able => Some(Self(unsafe { Schedule::<[__m128i; 15]>::new(key) })),
            _ => None,
        }
    }

    /// A text is next.
    #[inline]
    pub(super) fn expect(&self) {
        prefetch::value(&*self.0);
    }

    /// Writes the sealed `plain` and the tag into `out`.
    ///
    /// # Errors
    /// [`SrtpError::NoRoom`] unless `out` is [`TAG`] bytes longer than `plain`, [`SrtpError::Malformed`] if
    /// either text is longer than AES-GCM allows.
    pub(super) fn seal(
        &self,
        nonce: &[u8; 12],
        aad: &[u8],
        plain: &[u8],
        out: &mut [u8],
    ) -> Result<(), SrtpError> {
        if plain.len().checked_add(TAG) != Some(out.len()) {
            return Err(SrtpError::NoRoom);
        }
        if !countable(aad.len(), plain.len()) {
            return Err(SrtpError::Malformed);
        }
        // SAFETY: there is a key only where the features that it enables were detected.
        unsafe { self.0.seal(nonce, aad, plain, out) };
        Ok(())
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.0.powers.zeroize();
        self.0.rounds.iter_mut().for_each(Zeroize::zeroize);
    }
}

/// SP 800-38D §5.2.1.1: counters have 32 bits, of which two belong to no text, and lengths in bits have 64.
fn countable(aad: usize, plain: usize) -> bool {
    (aad as u64) < 1 << 61 && plain as u64 <= ((1 << 32) - 2) * BLOCK as u64
}

impl<const ROUNDS: usize> Schedule<[__m128i; ROUNDS]> {
    #[target_feature(enable = "aes,pclmulqdq,ssse3,sse4.1,avx")]
    fn new(key: &[u8]) -> Box<Schedule<[__m128i]>> {
        let zero = _mm_setzero_si128();
        let mut schedule: Box<Schedule<[__m128i]>> =
            Box::new(Self { rounds: [zero; ROUNDS], powers: [zero; POWERS] });
        expand(key, &mut schedule.rounds);
        let [hash] = schedule.ended(schedule.encrypt([schedule.rounds[0]]));
        let hash = to_u128(reversed(hash));
        // Times x, in reverse: a shift, and what is shifted out is x^128.
        let carry = (hash >> 127).wrapping_neg() & 0xc200_0000_0000_0000_0000_0000_0000_0001;
        let hash = from_u128(hash << 1 ^ carry);
        let mut power = hash;
        for to in &mut schedule.powers {
            *to = power;
            let mut product = Product::new();
            product.add(power, hash);
            power = product.reduced();
        }
        schedule
    }
}

impl Schedule<[__m128i]> {
    #[target_feature(enable = "aes,pclmulqdq,ssse3,sse4.1,avx")]
    fn seal(&self, nonce: &[u8; 12], aad: &[u8], plain: &[u8], out: &mut [u8]) {
        let counters = Counters::new(nonce, self.rounds[0]);
        let lengths = from_u128((aad.len() as u128) << 67 | (plain.len() as u128) << 3);
        let [mask, blocks @ ..] = self.encrypt(counters.batch::<{ HEAD + 1 }>(0, 1));
        let [mask] = self.ended([mask]);
        let Some((head, mut plain)) =
            plain.split_first_chunk::<{ HEAD * BLOCK }>().filter(|(_, rest)| !rest.is_empty())
        else {
            let [first, second] = self.associated(aad);
            let mut product = Product::new();
            product.add(first, self.powers[1]);
            product.add(second, self.powers[0]);
            return self.finish(product.reduced(), &self.ended(blocks), plain, out, mask, lengths);
        };
        let mut waiting = [_mm_setzero_si128(); BATCH];
        [waiting[0], waiting[1]] = self.associated(aad);
        let mut out = out;
        self.apply(&blocks, head, take(&mut out, HEAD), &mut waiting[2..]);
        let mut counter = BATCH as u32;
        while plain.len() > BATCH / 2 * BLOCK {
            // The one place with eight blocks: of two, a compiler makes a call, and eight registers go through
            // memory with each batch.
            let (blocks, hash) =
                self.encrypt_and_hash(counters.batch::<BATCH>(counter, 0), &waiting);
            let Some((batch, rest)) =
                plain.split_first_chunk::<{ BATCH * BLOCK }>().filter(|(_, rest)| !rest.is_empty())
            else {
                return self.finish(hash, &self.ended(blocks), plain, out, mask, lengths);
            };
            self.apply(&blocks, batch, take(&mut out, BATCH), &mut waiting);
            waiting[0] = _mm_xor_si128(waiting[0], hash);
            counter = counter.wrapping_add(BATCH as u32);
            plain = rest;
        }
        let blocks = counters.batch::<{ BATCH / 2 }>(counter, 0);
        let (blocks, hash) = self.encrypt_and_hash(blocks, &waiting);
        self.finish(hash, &self.ended(blocks), plain, out, mask, lengths);
    }

    /// The last two blocks of the associated data, and in the first of them the hash of those before, which
    /// few packets have. Blocks of zeros in front change nothing.
    #[inline]
    #[target_feature(enable = "aes,pclmulqdq,ssse3,sse4.1,avx")]
    fn associated(&self, aad: &[u8]) -> [__m128i; 2] {
        let (blocks, last) = aad.as_chunks::<BLOCK>();
        let mut pair = [_mm_setzero_si128(); 2];
        let mut full = 0;
        let mut push = |bytes: __m128i| {
            if full >= pair.len() {
                let mut product = Product::new();
                product.add(pair[0], self.powers[0]);
                pair[1] = _mm_xor_si128(pair[1], product.reduced());
            }
            pair = [pair[1], reversed(bytes)];
            full += 1;
        };
        for block in blocks {
            push(load(block));
        }
        if !last.is_empty() {
            push(from_u128(padded(last)));
        }
        pair
    }

    /// The last blocks, no more than `stream` has, the block of the lengths, and the tag.
    #[inline]
    #[target_feature(enable = "aes,pclmulqdq,ssse3,sse4.1,avx")]
    fn finish(
        &self,
        hash: __m128i,
        stream: &[__m128i],
        plain: &[u8],
        out: &mut [u8],
        mask: __m128i,
        lengths: __m128i,
    ) {
        let mut powers = self.powers[..=plain.len().div_ceil(BLOCK)].iter().rev();
        let mut power = || *powers.next().expect("one for each");
        let mut product = Product::new();
        let mut hash = hash;
        let (blocks, last) = plain.as_chunks::<BLOCK>();
        let (places, _) = out.as_chunks_mut::<BLOCK>();
        let mut pairs = places.iter_mut().zip(stream);
        for (block, (place, stream)) in blocks.iter().zip(&mut pairs) {
            let sealed = _mm_xor_si128(load(block), *stream);
            store(place, sealed);
            product.add(_mm_xor_si128(reversed(sealed), hash), power());
            hash = _mm_setzero_si128();
        }
        if !last.is_empty()
            && let Some((place, stream)) = pairs.next()
        {
            let keep = from_u128(u128::MAX >> (8 * (BLOCK - last.len())));
            let sealed = _mm_and_si128(_mm_xor_si128(from_u128(padded(last)), *stream), keep);
            // The tag will stand where this is too long.
            store(place, sealed);
            product.add(_mm_xor_si128(reversed(sealed), hash), power());
            hash = _mm_setzero_si128();
        }
        product.add(_mm_xor_si128(lengths, hash), power());
        let tag = _mm_xor_si128(reversed(product.reduced()), mask);
        if let Some(place) = out.last_chunk_mut() {
            store(place, tag);
        }
    }

    /// The keys of all rounds but the first, which counters come with, and that of the last one.
    #[inline]
    fn rounds(&self) -> (&[__m128i], &__m128i) {
        let (last, others) = self.rounds.split_last().expect("11 or 15 keys");
        (&others[1..], last)
    }

    /// All rounds but the last one.
    #[inline]
    #[target_feature(enable = "aes,avx")]
    fn encrypt<const N: usize>(&self, mut blocks: [__m128i; N]) -> [__m128i; N] {
        for round in self.rounds().0 {
            for block in &mut blocks {
                *block = _mm_aesenc_si128(*block, *round);
            }
        }
        blocks
    }

    /// The last round.
    #[inline]
    #[target_feature(enable = "aes,avx")]
    fn ended<const N: usize>(&self, mut blocks: [__m128i; N]) -> [__m128i; N] {
        for block in &mut blocks {
            *block = _mm_aesenclast_si128(*block, *self.rounds().1);
        }
        blocks
    }

    /// The last round. The text is added to its key, which can be done while the blocks are still on their
    /// way; what comes of it waits to be hashed.
    #[inline]
    #[target_feature(enable = "aes,ssse3,sse4.1,avx")]
    fn apply<const N: usize>(
        &self,
        blocks: &[__m128i; N],
        plain: &[u8],
        out: &mut [u8],
        waiting: &mut [__m128i],
    ) {
        let (plain, _) = plain.as_chunks();
        let (out, _) = out.as_chunks_mut();
        for (((block, plain), out), waiting) in blocks.iter().zip(plain).zip(out).zip(waiting) {
            let last = _mm_xor_si128(*self.rounds().1, load(plain));
            let sealed = _mm_aesenclast_si128(*block, last);
            store(out, sealed);
            *waiting = reversed(sealed);
        }
    }

    /// Encrypts some blocks while `waiting`, the next of what is hashed, go into the hash. What was hashed
    /// before stands in the first of those, which comes last, so that only that one waits for it.
    #[inline]
    #[target_feature(enable = "aes,pclmulqdq,ssse3,sse4.1,avx")]
    fn encrypt_and_hash<const N: usize>(
        &self,
        mut blocks: [__m128i; N],
        waiting: &[__m128i; BATCH],
    ) -> ([__m128i; N], __m128i) {
        let mut rounds = self.rounds().0.iter();
        let mut product = Product::new();
        let waiting = waiting.iter().rev();
        for ((waiting, power), round) in waiting.zip(&self.powers).zip(&mut rounds) {
            for block in &mut blocks {
                *block = _mm_aesenc_si128(*block, *round);
            }
            product.add(*waiting, *power);
        }
        for round in rounds {
            for block in &mut blocks {
                *block = _mm_aesenc_si128(*block, *round);
            }
        }
        (blocks, product.reduced())
    }
}

/// Counter blocks of a packet, the first round key added.
struct Counters(__m128i);

impl Counters {
    #[inline]
    #[target_feature(enable = "avx")]
    fn new(nonce: &[u8; 12], first: __m128i) -> Self {
        let (words, _) = nonce.as_chunks();
        let base = from_words([words[0], words[1], words[2], [0; 4]].map(u32::from_le_bytes));
        Self(_mm_xor_si128(base, first))
    }

    /// Blocks from `skipped` on, of the batch that begins at `counter`: a multiple of eight, so those within
    /// differ from it in bits that it does not use.
    #[inline]
    #[target_feature(enable = "avx")]
    fn batch<const N: usize>(&self, counter: u32, skipped: u32) -> [__m128i; N] {
        let base = _mm_xor_si128(self.0, from_words([0, 0, 0, counter.swap_bytes()]));
        let mut blocks = [base; N];
        for (block, within) in blocks.iter_mut().zip(skipped..) {
            *block = _mm_xor_si128(base, from_words([0, 0, 0, within.swap_bytes()]));
        }
        blocks
    }
}

/// A sum of products, each of 256 bits, not reduced yet.
struct Product {
    low: __m128i,
    middle: __m128i,
    high: __m128i,
}

impl Product {
    #[inline]
    #[target_feature(enable = "avx")]
    fn new() -> Self {
        let zero = _mm_setzero_si128();
        Self { low: zero, middle: zero, high: zero }
    }

    #[inline]
    #[target_feature(enable = "pclmulqdq,avx")]
    fn add(&mut self, block: __m128i, power: __m128i) {
        let low = _mm_clmulepi64_si128::<0x00>(block, power);
        let high = _mm_clmulepi64_si128::<0x11>(block, power);
        let one = _mm_clmulepi64_si128::<0x01>(block, power);
        let other = _mm_clmulepi64_si128::<0x10>(block, power);
        self.low = _mm_xor_si128(self.low, low);
        self.high = _mm_xor_si128(self.high, high);
        self.middle = _mm_xor_si128(self.middle, one);
        self.middle = _mm_xor_si128(self.middle, other);
    }

    /// Adds multiples of the polynomial until the lower half is zero, 64 bits at a time.
    #[inline]
    #[target_feature(enable = "pclmulqdq,avx")]
    fn reduced(self) -> __m128i {
        let polynomial = _mm_set_epi64x(0, 0xc200_0000_0000_0000_u64 as i64);
        let middle = _mm_xor_si128(self.middle, folded(self.low, polynomial));
        _mm_xor_si128(self.high, folded(middle, polynomial))
    }
}

#[inline]
#[target_feature(enable = "pclmulqdq,avx")]
fn folded(part: __m128i, polynomial: __m128i) -> __m128i {
    let multiple = _mm_clmulepi64_si128::<0x00>(part, polynomial);
    _mm_xor_si128(_mm_shuffle_epi32::<0b01_00_11_10>(part), multiple)
}

/// Room for so many blocks.
fn take<'a>(out: &mut &'a mut [u8], blocks: usize) -> &'a mut [u8] {
    out.split_off_mut(..blocks * BLOCK).expect("longer than the text")
}

#[inline]
#[target_feature(enable = "avx")]
fn load(bytes: &[u8; BLOCK]) -> __m128i {
    from_u128(u128::from_le_bytes(*bytes))
}

#[inline]
#[target_feature(enable = "sse4.1,avx")]
fn store(to: &mut [u8; BLOCK], block: __m128i) {
    *to = to_u128(block).to_le_bytes();
}

#[inline]
#[target_feature(enable = "avx")]
fn from_u128(bits: u128) -> __m128i {
    _mm_set_epi64x((bits >> 64) as i64, bits as i64)
}

#[inline]
#[target_feature(enable = "sse4.1,avx")]
fn to_u128(block: __m128i) -> u128 {
    let (low, high) = (_mm_extract_epi64::<0>(block), _mm_extract_epi64::<1>(block));
    u128::from(high as u64) << 64 | u128::from(low as u64)
}

#[inline]
#[target_feature(enable = "avx")]
fn from_words(words: [u32; 4]) -> __m128i {
    let [a, b, c, d] = words.map(|word| word as i32);
    _mm_set_epi32(d, c, b, a)
}

#[inline]
#[target_feature(enable = "ssse3,avx")]
fn reversed(block: __m128i) -> __m128i {
    let order = _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    _mm_shuffle_epi8(block, order)
}

/// At most 16 bytes as a little-endian number: by two halves that overlap, without a step per byte.
#[inline]
fn padded(bytes: &[u8]) -> u128 {
    let len = bytes.len();
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        let (first, last) = (u64::from_le_bytes(*first), u64::from_le_bytes(*last));
        u128::from(last) << 64 >> (8 * (16 - len)) | u128::from(first)
    } else if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
        u128::from(u64::from(last) << 32 >> (8 * (8 - len)) | u64::from(first))
    } else {
        bytes.iter().rev().fold(0, |number, byte| number << 8 | u128::from(*byte))
    }
}

/// FIPS 197 §5.2, words as they lie in memory.
#[target_feature(enable = "aes,sse4.1,avx")]
fn expand(key: &[u8], rounds: &mut [__m128i]) {
    let mut words = Zeroizing::new([0; 60]);
    let (own, _) = key.as_chunks();
    for (word, own) in words.iter_mut().zip(own) {
        *word = u32::from_le_bytes(*own);
    }
    let len = own.len();
    let mut constant = 1_u32;
    for at in len..4 * rounds.len() {
        let mut word = words[at - 1];
        if at % len == 0 {
            word = substituted(word).rotate_right(8) ^ constant;
            constant = (constant << 1) ^ ((constant >> 7) * 0x11b);
        } else if len > 6 && at % len == 4 {
            word = substituted(word);
        }
        words[at] = words[at - len] ^ word;
    }
    for (round, words) in rounds.iter_mut().zip(words.as_chunks().0) {
        *round = from_words(*words);
    }
}

#[target_feature(enable = "aes,sse4.1,avx")]
fn substituted(word: u32) -> u32 {
    let assist = _mm_aeskeygenassist_si128::<0>(_mm_set1_epi32(word as i32));
    _mm_extract_epi32::<0>(assist) as u32
}
