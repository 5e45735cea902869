import LongspanKernels

/// Content for buffers that are read for their time alone.
enum Filling {
  private static let period = 8192

  /// Numbers between -1 and 1.
  private static let noise: [Float] = {
    var state: UInt32 = 1
    return (0..<period).map { _ in
      // the generator of Numerical Recipes (Press et al. 1992, section 7.1), of which the upper bits are good
      state = state &* 1_664_525 &+ 1_013_904_223
      return Float(Int32(bitPattern: state) >> 8) * 0x1p-23
    }
  }()

  /// The bf16 number whose two bytes are 0x2C: in quantized blocks every scale, whichever its type, is then an
  /// ordinary number.
  private static let blocks = [Float](repeating: Float(bitPattern: 0x2C2C_0000), count: period)

  /// Fills a buffer with numbers of a type that repeat every 8,192.
  static func fill<Storage: BitwiseCopyable>(
    _ buffer: inout AlignedBuffer<Storage>, _ type: ElementType, _ context: KernelContext
  ) throws(LongspanError) {
    try fill(&buffer, type, noise, context)
  }

  /// Fills a buffer with weights of a type.
  static func fill(
    _ buffer: inout AlignedBuffer<UInt8>, _ type: WeightType, _ context: KernelContext
  ) throws(LongspanError) {
    switch type {
    case .f32: try fill(&buffer, .f32, noise, context)
    case .f16: try fill(&buffer, .f16, noise, context)
    case .bf16: try fill(&buffer, .bf16, noise, context)
    default: try fill(&buffer, .bf16, blocks, context)
    }
  }

  /// Fills a buffer with numbers from 0 to `limit` - 1 in no order.
  static func fill(_ buffer: inout AlignedBuffer<Int32>, below limit: Int) {
    var span = buffer.mutableSpan
    var state: UInt32 = 7
    let limit = UInt64(max(1, min(limit, Int(Int32.max))))
    for index in span.indices {
      state = state &* 1_664_525 &+ 1_013_904_223
      span[index] = Int32(UInt64(state) * limit >> 32)
    }
  }

  /// The kernel that converts writes each page with one of the threads that will read it.
  private static func fill<Storage: BitwiseCopyable>(
    _ buffer: inout AlignedBuffer<Storage>, _ type: ElementType, _ values: [Float], _ context: KernelContext
  ) throws(LongspanError) {
    let source = values.span
    let unit = MemoryLayout<Storage>.stride
    let count = buffer.count * unit / type.byteCount
    let rows = count / period
    let end = rows * period * type.byteCount / unit
    if rows > 0 {
      var part = try buffer.mutableSpan(of: 0..<end)
      var output = try MutableTensorView(
        part.mutableBytes, TensorLayout(type, tokens: rows, columns: period))
      try context.convert(
        TensorView(source.bytes, TensorLayout(tokens: rows, columns: period, tokenStride: 0)), into: &output)
    }
    let rest = count - rows * period
    if rest > 0 {
      var part = try buffer.mutableSpan(of: end..<buffer.count)
      var output = try MutableTensorView(part.mutableBytes, TensorLayout(type, tokens: 1, columns: rest))
      try context.convert(TensorView(source.bytes, TensorLayout(tokens: 1, columns: rest)), into: &output)
    }
  }
}
