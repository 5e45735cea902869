/// e to the power of `x`, for `x` of at most 0, to within 2 units in the last place.
///
/// It uses additions and multiplications only, whose results IEEE 754 fixes, so that it gives the same bits on
/// every machine; the C library's `exp` does not.
func portableExponential(_ x: Double) -> Double {
  // Below this the result is less than the smallest normal number; as a probability it is 0.
  guard x > -708 else { return 0 }
  // x = n ln 2 + r with |r| <= ln 2 / 2. ln 2 is split so that n times its upper part is exact.
  let n = (x * 1.442_695_040_888_963_4).rounded()
  let r = (x - n * 0x1.62e42feep-1) - n * 0x1.a39ef35793c76p-33
  // The Taylor series to r^13 / 13!: the next term is below 2^-57 of the result.
  var sum = 1 / 6_227_020_800.0
  sum = sum * r + 1 / 479_001_600.0
  sum = sum * r + 1 / 39_916_800.0
  sum = sum * r + 1 / 3_628_800.0
  sum = sum * r + 1 / 362_880.0
  sum = sum * r + 1 / 40_320.0
  sum = sum * r + 1 / 5040.0
  sum = sum * r + 1 / 720.0
  sum = sum * r + 1 / 120.0
  sum = sum * r + 1 / 24.0
  sum = sum * r + 1 / 6.0
  sum = sum * r + 0.5
  sum = sum * r + 1
  sum = sum * r + 1
  return sum * Double(sign: .plus, exponent: Int(n), significand: 1)
}
