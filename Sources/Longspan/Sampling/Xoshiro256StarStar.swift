/// The generator xoshiro256** 1.0 (Blackman and Vigna 2021, "Scrambled linear pseudorandom number generators",
/// https://prng.di.unimi.it), with its state filled by SplitMix64 from a 64-bit seed.
///
/// The sequence depends on the seed alone, so it is the same on every machine and in every version of Longspan.
/// It is not fit for cryptography.
public struct Xoshiro256StarStar: RandomNumberGenerator, Sendable {
  private var state: (UInt64, UInt64, UInt64, UInt64)

  /// A generator whose state SplitMix64 makes of `seed`.
  public init(seed: UInt64) {
    var mixer = SplitMix64(state: seed)
    self.state = (mixer.next(), mixer.next(), mixer.next(), mixer.next())
  }

  /// Begins with a given state, which must not be all zero.
  init(state: (UInt64, UInt64, UInt64, UInt64)) {
    self.state = state
  }

  /// The next 64 bits.
  public mutating func next() -> UInt64 {
    let result = Self.rotate(state.1 &* 5, 7) &* 9
    let shifted = state.1 << 17
    state.2 ^= state.0
    state.3 ^= state.1
    state.1 ^= state.2
    state.0 ^= state.3
    state.2 ^= shifted
    state.3 = Self.rotate(state.3, 45)
    return result
  }

  /// A multiple of 2^-53 in [0, 1), all equally probable.
  public mutating func nextUnit() -> Double {
    Double(next() >> 11) * 0x1p-53
  }

  private static func rotate(_ value: UInt64, _ count: UInt64) -> UInt64 {
    value << count | value >> (64 - count)
  }
}

/// The generator SplitMix64 (Steele, Lea and Flood 2014), which spreads the bits of a seed.
struct SplitMix64: RandomNumberGenerator, Sendable {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ mixed >> 30) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
    return mixed ^ mixed >> 31
  }
}
