import LongspanKernels

/// Copies of one operand in one buffer, each on cache lines of its own, so that calls can rotate over them.
struct Slots<Element: BitwiseCopyable>: ~Copyable {
  var buffer: AlignedBuffer<Element>
  /// Elements of a copy.
  let count: Int
  /// Elements from one copy to the next.
  private let stride: Int

  /// - Throws: ``/LongspanKernels/LongspanError`` with ``/LongspanKernels/LongspanError/Code/insufficientMemory``.
  init(copies: Int, count: Int) throws(LongspanError) {
    let line = 64 / MemoryLayout<Element>.stride
    let (padded, overflow) = count.addingReportingOverflow(line - 1)
    let stride = padded / line * line
    let (total, overflowTotal) = stride.multipliedReportingOverflow(by: copies)
    guard !overflow, !overflowTotal else {
      throw LongspanError(.overflow, "\(copies) operands of \(count) elements do not fit in 64 bits")
    }
    let buffer = try AlignedBuffer<Element>(count: total)
    self.buffer = buffer
    self.count = count
    self.stride = stride
  }

  /// The elements of a copy.
  func range(_ slot: Int) -> Range<Int> {
    slot * stride..<slot * stride + count
  }
}

extension Slots where Element == UInt8 {
  /// Copies of `elements` elements of a type, filled.
  init(copies: Int, _ type: ElementType, _ elements: Int, _ context: KernelContext) throws(LongspanError) {
    var made = try Slots(copies: copies, count: elements * type.byteCount)
    try Filling.fill(&made.buffer, type, context)
    self = made
  }

  /// A copy as a tensor.
  @_lifetime(borrow self)
  borrowing func view(_ slot: Int, _ layout: TensorLayout) throws(LongspanError) -> TensorView {
    try TensorView(buffer.span.bytes.extracting(range(slot)), layout)
  }
}

extension Slots where Element == Float {
  /// Copies of room for `elements` floats, filled with numbers of a type.
  init(
    copies: Int, filled elements: Int, _ context: KernelContext, as type: ElementType = .f32
  ) throws(LongspanError) {
    var made = try Slots(copies: copies, count: elements)
    try Filling.fill(&made.buffer, type, context)
    self = made
  }
}
