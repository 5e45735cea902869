import CKernels

/// An owner of reserved address space whose pages are taken, zeroed, when they are first written. C: `kv.h`.
public struct ReservedMemory: ~Copyable {
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

  public var byteCount: Int { storage.count }

  /// `bytes` rounded up to whole pages.
  public static func roundedUpToPages(_ bytes: Int) -> Int {
    let page = lspan_kv_page_bytes()
    return (bytes + page - 1) / page * page
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
  @_lifetime(&self)
  public mutating func mutableBytes(_ range: Range<Int>) throws(LongspanError) -> MutableRawSpan {
    try check(range)
    let span = MutableRawSpan(_unsafeBytes: UnsafeMutableRawBufferPointer(rebasing: storage[range]))
    return _overrideLifetime(span, mutating: &self)
  }

  /// Moves whole pages of content here from another reservation, without a copy where the system can; the source
  /// range then holds unspecified content. C: `lspan_kv_move`.
  public mutating func move(
    _ byteCount: Int, from source: inout ReservedMemory, at sourceOffset: Int, to offset: Int
  ) throws(LongspanError) {
    guard byteCount > 0 else { return }
    let (end, overflow) = offset.addingReportingOverflow(byteCount)
    let (sourceEnd, sourceOverflow) = sourceOffset.addingReportingOverflow(byteCount)
    guard offset >= 0, sourceOffset >= 0, !overflow, !sourceOverflow, end <= storage.count,
      sourceEnd <= source.storage.count
    else {
      throw LongspanError(
        .badIndex, "moving \(byteCount) bytes from \(sourceOffset) to \(offset) leaves a reservation")
    }
    let status = lspan_kv_move(
      storage.baseAddress?.advanced(by: offset), source.storage.baseAddress?.advanced(by: sourceOffset),
      byteCount)
    try LongspanError.check(status, "moving \(byteCount) bytes of a cache")
  }
}

// Owns its memory alone, so it may move to another thread.
extension ReservedMemory: @unchecked Sendable {}
