import CKernels

/// Reserved address space whose pages are taken, zeroed, when they are first written. C: `kv.h`.
///
/// A reference, so that owners can share it. It may be read by any number of them, on any threads; whoever writes must be
/// the only one that uses it then.
public final class ReservedMemory: @unchecked Sendable {
  private let storage: UnsafeMutableRawBufferPointer

  /// Reserves `byteCount` bytes, in huge pages where the system has them.
  ///
  /// - Throws: ``LongspanError`` with ``LongspanError/Code/insufficientMemory`` if there is no address space.
  public init(byteCount: Int) throws(LongspanError) {
    var memory: UnsafeMutableRawPointer?
    let status = byteCount > 0 ? lspan_kv_reserve(byteCount, &memory) : lspan_status.bad_shape
    guard status == .ok, let memory else {
      throw LongspanError(.insufficientMemory, "no address space for \(byteCount) bytes")
    }
    storage = UnsafeMutableRawBufferPointer(start: memory, count: byteCount)
  }

  deinit {
    _ = lspan_kv_release(storage.baseAddress, storage.count)
  }

  /// Bytes reserved.
  public var byteCount: Int { storage.count }

  /// `bytes` rounded up to whole pages.
  public static func roundedUpToPages(_ bytes: Int) -> Int {
    let page = lspan_kv_page_bytes()
    return (bytes + page - 1) / page * page
  }

  /// Where a byte is; the caller has checked that there is one.
  func address(_ offset: Int) -> UnsafeRawPointer? {
    storage.baseAddress.map { UnsafeRawPointer($0 + offset) }
  }

  private func check(_ range: Range<Int>) throws(LongspanError) {
    guard range.lowerBound >= 0, range.upperBound <= storage.count else {
      throw LongspanError(.badIndex, "bytes \(range) are outside a reservation of \(storage.count)")
    }
  }

  /// Bytes to read.
  @_lifetime(borrow self)
  public func bytes(_ range: Range<Int>) throws(LongspanError) -> RawSpan {
    try check(range)
    let span = RawSpan(_unsafeBytes: UnsafeRawBufferPointer(rebasing: storage[range]))
    return _overrideLifetime(span, borrowing: self)
  }

  /// Bytes to write.
  public func withMutableBytes(
    _ range: Range<Int>, _ body: (inout MutableRawSpan) throws(LongspanError) -> Void
  ) throws(LongspanError) {
    try check(range)
    var span = MutableRawSpan(_unsafeBytes: UnsafeMutableRawBufferPointer(rebasing: storage[range]))
    try body(&span)
  }

  /// A tensor in these bytes, to write.
  public func write(
    _ place: TensorPlace, _ body: (inout MutableTensorView) throws(LongspanError) -> Void
  ) throws(LongspanError) {
    let range = place.byteOffset..<max(place.byteOffset, storage.count)
    try check(range)
    var view = try MutableTensorView(
      MutableRawSpan(_unsafeBytes: UnsafeMutableRawBufferPointer(rebasing: storage[range])), place.layout)
    try body(&view)
  }

  /// Copies `byteCount` bytes here from other memory.
  public func copy(
    _ byteCount: Int, from source: ReservedMemory, at sourceOffset: Int, to offset: Int
  ) throws(LongspanError) {
    try checkTransfer(byteCount, from: source, at: sourceOffset, to: offset)
    UnsafeMutableRawBufferPointer(rebasing: storage[offset..<offset + byteCount]).copyMemory(
      from: UnsafeRawBufferPointer(rebasing: source.storage[sourceOffset..<sourceOffset + byteCount]))
  }

  /// Moves whole pages of content here from another reservation, without a copy where the system can; the source
  /// range then holds unspecified content. C: `lspan_kv_move`.
  public func move(
    _ byteCount: Int, from source: ReservedMemory, at sourceOffset: Int, to offset: Int
  ) throws(LongspanError) {
    guard byteCount > 0 else { return }
    try checkTransfer(byteCount, from: source, at: sourceOffset, to: offset)
    let status = lspan_kv_move(
      storage.baseAddress?.advanced(by: offset), source.storage.baseAddress?.advanced(by: sourceOffset),
      byteCount)
    try LongspanError.check(status, "moving \(byteCount) bytes of a cache")
  }

  private func checkTransfer(
    _ byteCount: Int, from source: ReservedMemory, at sourceOffset: Int, to offset: Int
  ) throws(LongspanError) {
    let (end, overflow) = offset.addingReportingOverflow(byteCount)
    let (sourceEnd, sourceOverflow) = sourceOffset.addingReportingOverflow(byteCount)
    guard byteCount >= 0, offset >= 0, sourceOffset >= 0, !overflow, !sourceOverflow, end <= storage.count,
      sourceEnd <= source.storage.count
    else {
      throw LongspanError(
        .badIndex, "\(byteCount) bytes from \(sourceOffset) to \(offset) leave a reservation")
    }
  }
}
