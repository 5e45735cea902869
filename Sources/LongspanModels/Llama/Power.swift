import Glibc

/// base^exponent, from the C library.
func power(_ base: Double, _ exponent: Double) -> Double {
  pow(base, exponent)
}

/// e^x, from the C library.
func exponential(_ x: Double) -> Double {
  exp(x)
}
