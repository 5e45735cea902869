import LongspanKernels

/// One reservation for all packed weights of a model, in huge pages where the system has them: matrices one by one would
/// often be too small for those.
final class WeightArena {
  private let memory: ReservedMemory
  private var used = 0

  /// - Parameter byteCount: of all matrices together.
  init(byteCount: Int) throws(LongspanError) {
    memory = try ReservedMemory(byteCount: max(byteCount, 1))
  }

  /// Packs a matrix behind the others.
  func pack(_ weights: WeightMatrix, on context: KernelContext) throws(LongspanError) -> PackedWeights {
    let packed = try PackedWeights(weights, on: context, into: memory, at: used)
    used += Self.space(packed.byteCount)
    return packed
  }

  /// Bytes that a matrix takes with what keeps the next one aligned.
  static func space(_ bytes: Int) -> Int {
    (bytes + PackedWeights.alignment - 1) / PackedWeights.alignment * PackedWeights.alignment
  }
}
