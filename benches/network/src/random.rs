//! A small generator (xorshift64*), so that no change of a library changes what a seed stands for.

#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn seeded(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.draw() % bound }
    }

    /// Whether something happens that happens in this share of all cases, from 0 to 1.
    pub fn happens(&mut self, share: f64) -> bool {
        share > 0.0 && (self.below(1 << 32) as f64) < share * (1_u64 << 32) as f64
    }
}
