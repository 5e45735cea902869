import LongspanMeasure

/// Shapes that take no time.
enum SmallShapes {
  private static let sizes = [
    "Hq": 4, "Hk": 2, "D": 64, "S": 512, "N": 96, "P": 3, "R": 8, "T": 5, "H": 2, "C": 512, "V": 1000,
    "M": 64,
    "K": 512, "window": 0, "L": 24, "E": 40,
  ]

  /// What is chosen, out of how many.
  private static func choice(_ kernel: BenchmarkKernel) -> [String: Int] {
    switch kernel {
    case .sparseDecode: ["K": 128]
    case .sparsePrefill: ["N": 192, "K": 64]
    case .lagPrefill: ["sink": 7, "W": 10, "K": 3]
    case .lagScores: ["W": 12]
    case .lagCompression: ["W": 12, "K": 5]
    case .select, .compact: ["K": 40]
    default: [:]
    }
  }

  /// A small shape for the kernel of a standard case.
  static func shape(for standard: BenchmarkCase) -> [String: Int] {
    standard.shape.merging(sizes.filter { standard.shape[$0.key] != nil }) { $1 }
      .merging(choice(standard.kernel)) { $1 }
  }
}
