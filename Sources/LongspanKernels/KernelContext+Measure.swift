import CKernels

/// Loops that run into one limit of the machine each, on every thread of the context; the caller takes the time.
///
/// Give each enough to do for a millisecond or more. C: `measure.h`.
extension KernelContext {
  /// Reads whole cache lines of memory, each thread a slice of its own over and over.
  ///
  /// - Parameters:
  ///   - data: floats, aligned to 64 bytes; what lies beyond the last whole cache line is left out.
  ///   - passes: how often.
  /// - Returns: the bytes read.
  @discardableResult
  public func measureRead(_ data: RawSpan, passes: Int) throws(LongspanError) -> Int {
    let line = Int(LSPAN_MEASURE_LINE)
    let count = data.byteCount / (4 * line) * line
    let bytes = try checkedProduct(count * 4, passes, "reading")
    var checksum = 0.0
    let start = data.withUnsafeBytes { $0.baseAddress?.assumingMemoryBound(to: Float.self) }
    try LongspanError.check(
      lspan_measure_read(handle, start, Int64(count), Int64(passes), &checksum), "reading \(count) floats")
    return bytes
  }

  /// Multiply-adds in registers, in independent chains.
  ///
  /// - Returns: the FLOPs done; 0, at once, where there is no arithmetic in `type`.
  public func measureMultiplyAdd(_ type: ElementType, iterations: Int) throws(LongspanError) -> Int {
    var flops: Int64 = 0
    var checksum = 0.0
    try LongspanError.check(
      lspan_measure_fma(handle, type.code, Int64(iterations), &flops, &checksum), "multiply-adds")
    return Int(flops)
  }

  /// The exponential function over arrays in the threads' L1 caches.
  ///
  /// - Returns: the elements done.
  public func measureExp(passes: Int) throws(LongspanError) -> Int {
    var elements: Int64 = 0
    var checksum = 0.0
    try LongspanError.check(lspan_measure_exp(handle, Int64(passes), &elements, &checksum), "exponentials")
    return Int(elements)
  }
}
