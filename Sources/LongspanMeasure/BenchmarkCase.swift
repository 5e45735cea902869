import LongspanKernels

/// Where a call's operands are when it starts.
public enum CacheState: String, Sendable, Codable, CaseIterable {
  /// In memory: calls rotate over operands that together are larger than the last-level cache.
  case cold
  /// In the caches, as far as they fit: each call uses the operands of the one before.
  case warm
}

/// One thing to time: a kernel, a shape, an element type, and where the operands are.
public struct BenchmarkCase: Sendable, Hashable {
  /// What is timed.
  public let kernel: BenchmarkKernel
  /// By the dimensions' names, see ``BenchmarkKernel/dimensions``.
  public let shape: [String: Int]
  /// How the operands are stored whose type the kernel leaves open.
  public let elementType: ElementType
  /// Where the operands are.
  public let cache: CacheState

  /// A case; the shape is by the dimensions' names.
  public init(
    _ kernel: BenchmarkKernel, _ shape: [String: Int], _ elementType: ElementType = .f32,
    cache: CacheState = .warm
  ) {
    self.kernel = kernel
    self.shape = shape
    self.elementType = elementType
    self.cache = cache
  }

  /// The kernel's name.
  public var name: String { kernel.name }

  /// The shape in a fixed order: "Hq=32 Hk=8 D=128 S=4096"; a window or tokens only where they are not the default.
  public var shapeDescription: String {
    kernel.dimensions.compactMap { key, _ in
      guard let value = shape[key] else { return nil }
      if key == "window" && value == 0 { return nil }
      if key == "T" && value == 1 && (kernel == .attentionDecode || kernel == .sparseDecode) { return nil }
      if key == "block" && value == 1 { return nil }
      return "\(key)=\(value)"
    }.joined(separator: " ")
  }

  /// What a call must do at least.
  public func cost() throws(LongspanError) -> BenchmarkCost {
    try BenchmarkCost(kernel, shape, elementType)
  }

  /// Throws unless each dimension is there and in range.
  func validate() throws(LongspanError) {
    for (key, least) in kernel.dimensions {
      guard let value = shape[key], value >= least else {
        throw LongspanError(
          .badShape, "\(name): \(key)=\(shape[key] ?? 0) is below \(least)")
      }
    }
    if kernel.isAttention, let heads = shape["Hq"], let keyHeads = shape["Hk"], heads % keyHeads != 0 {
      throw LongspanError(.badShape, "\(name): Hq=\(heads) is not a multiple of Hk=\(keyHeads)")
    }
    let (kept, of) = kernel.choice
    if let kept, let of, let most = shape[of], let number = shape[kept], number > most {
      throw LongspanError(.badShape, "\(name): \(kept)=\(number) cannot be chosen out of \(of)=\(most)")
    }
    if let block = shape["block"] {
      for key in [kept, of] {
        guard let key, let number = shape[key], number % block != 0 else { continue }
        throw LongspanError(
          .badShape, "\(name): \(key)=\(number) tokens are not whole blocks of block=\(block)")
      }
    }
    _ = try cost()
  }
}
