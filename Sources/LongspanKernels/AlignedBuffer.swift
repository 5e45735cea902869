import CKernels

/// An owner of zeroed memory for kernels: aligned to 64 bytes or more, in huge pages where it is large.
public struct AlignedBuffer<Element: BitwiseCopyable>: ~Copyable {
  let storage: UnsafeMutableBufferPointer<Element>

  /// Allocates `count` elements, all bits zero.
  ///
  /// - Throws: ``LongspanError`` with ``LongspanError/Code/insufficientMemory``.
  public init(count: Int) throws(LongspanError) {
    let bytes = try checkedProduct(count, MemoryLayout<Element>.stride, "a buffer")
    guard bytes > 0 else {
      self.init()
      return
    }
    var memory: UnsafeMutableRawPointer?
    let status = lspan_kv_reserve(bytes, &memory)
    guard status == .ok, let memory else {
      throw LongspanError(.insufficientMemory, "no memory for a buffer of \(bytes) bytes")
    }
    self.init(
      storage: UnsafeMutableBufferPointer(
        start: memory.bindMemory(to: Element.self, capacity: count), count: count))
  }

  private init(storage: UnsafeMutableBufferPointer<Element>) {
    self.storage = storage
  }

  /// A buffer of nothing.
  public init() {
    self.init(storage: UnsafeMutableBufferPointer(start: nil, count: 0))
  }

  deinit {
    if let base = storage.baseAddress {
      _ = lspan_kv_release(base, storage.count * MemoryLayout<Element>.stride)
    }
  }

  /// Elements held.
  public var count: Int { storage.count }

  /// The elements.
  public var span: Span<Element> {
    @_lifetime(borrow self)
    get {
      let span = Span(_unsafeElements: UnsafeBufferPointer(storage))
      return _overrideLifetime(span, borrowing: self)
    }
  }

  /// The elements, to write to.
  public var mutableSpan: MutableSpan<Element> {
    @_lifetime(&self)
    mutating get {
      let span = MutableSpan(_unsafeElements: storage)
      return _overrideLifetime(span, mutating: &self)
    }
  }

  /// Some of the elements, to write to.
  ///
  /// - Throws: ``LongspanError`` with ``LongspanError/Code/badIndex`` if the range is not within the buffer.
  @_lifetime(&self)
  public mutating func mutableSpan(of range: Range<Int>) throws(LongspanError) -> MutableSpan<Element> {
    guard range.lowerBound >= 0, range.upperBound <= count else {
      throw LongspanError(
        .badIndex, "elements \(range.lowerBound) to \(range.upperBound) are not within a buffer of \(count)")
    }
    let span = MutableSpan(_unsafeElements: UnsafeMutableBufferPointer(rebasing: storage[range]))
    return _overrideLifetime(span, mutating: &self)
  }
}

// Owns its memory alone, so it may move to another thread.
extension AlignedBuffer: @unchecked Sendable where Element: Sendable {}

/// Scratch memory for kernel calls, which grows to the most that a call has asked for and is then reused.
///
/// Not shared by calls that run at the same time.
public struct Workspace: ~Copyable {
  private var buffer = AlignedBuffer<UInt8>()

  /// An empty workspace, which takes memory at the first call that needs it.
  public init() {}

  /// Bytes held.
  public var byteCount: Int { buffer.count }

  /// Memory of at least `bytes` bytes; its content is unspecified.
  mutating func reserve(_ bytes: Int) throws(LongspanError) -> UnsafeMutableRawPointer? {
    if byteCount < bytes {
      // the old memory goes first, so that both are never held at once
      buffer = AlignedBuffer()
      buffer = try AlignedBuffer(count: bytes)
    }
    return buffer.storage.baseAddress.map { UnsafeMutableRawPointer($0) }
  }
}
