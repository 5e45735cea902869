import LongspanKernels

/// Keeps the memory of matrices that are copies of each other.
private final class WeightSlots: Sendable {
  private let buffer: AlignedBuffer<UInt8>
  init(_ buffer: consuming AlignedBuffer<UInt8>) { self.buffer = buffer }
}

extension WeightMatrix {
  /// Matrices with the same content, each with bytes of its own.
  static func copies(
    _ copies: Int, _ type: WeightType, rows: Int, columns: Int, _ context: KernelContext
  ) throws(LongspanError) -> [WeightMatrix] {
    var slots = try Slots<UInt8>(copies: copies, count: try byteCount(type, rows: rows, columns: columns))
    try Filling.fill(&slots.buffer, type, context)
    var ranges: [Range<Int>] = []
    for slot in 0..<copies { ranges.append(slots.range(slot)) }
    // the owner that each matrix holds keeps these addresses alive
    let bytes = slots.buffer.span.withUnsafeBufferPointer { UnsafeRawBufferPointer($0) }
    let owner = WeightSlots(slots.buffer)
    var matrices: [WeightMatrix] = []
    for range in ranges {
      matrices.append(
        try WeightMatrix(
          type, rows: rows, columns: columns, bytes: UnsafeRawBufferPointer(rebasing: bytes[range]),
          owner: owner))
    }
    return matrices
  }
}

/// Packed matrices with the same content, one behind the other in memory of their own.
struct PackedCopies {
  let weights: [PackedWeights]
  /// `nil` where there are none.
  let memory: ReservedMemory?

  var byteCount: Int { memory?.byteCount ?? 0 }

  init() {
    weights = []
    memory = nil
  }

  init(
    _ copies: Int, _ type: WeightType, rows: Int, columns: Int, _ context: KernelContext
  ) throws(LongspanError) {
    let source = try WeightMatrix.copies(1, type, rows: rows, columns: columns, context)[0]
    let bytes = try PackedWeights.byteCount(type, rows: rows, columns: columns)
    let (total, overflow) = bytes.multipliedReportingOverflow(by: copies)
    guard !overflow else {
      throw LongspanError(.overflow, "\(copies) packed matrices of \(bytes) bytes do not fit in 64 bits")
    }
    let memory = try ReservedMemory(byteCount: total)
    var weights: [PackedWeights] = []
    for copy in 0..<copies {
      weights.append(try PackedWeights(source, on: context, into: memory, at: copy * bytes))
    }
    self.weights = weights
    self.memory = memory
  }
}
