import LongspanKernels

/// The keys and values of every token read so far, for each layer of a model.
///
/// Layer by layer, keys then values, head by head, each head's tokens are contiguous: `[layers, 2, Hk, capacity, D]`.
/// The address space for `capacity` tokens is reserved at once, but memory is taken only for tokens that have been
/// stored. When the capacity is used up it doubles, and on Linux the stored pages move to the larger reservation
/// without being copied.
///
/// A step of a model writes the slots of its new tokens with ``keySlots(layer:count:)`` and
/// ``valueSlots(layer:count:)`` in each layer, reads them back with ``keys(layer:including:)``, and makes them part
/// of the cache with ``commit(_:)``; without that call they are overwritten by the next step.
public struct DenseKVCache: ~Copyable {
  public let layers: Int
  public let heads: Int
  public let headDimension: Int
  public let elementType: ElementType
  /// Tokens stored.
  public private(set) var count = 0
  /// Tokens that fit without another reservation.
  public private(set) var capacity: Int
  private var memory: ReservedMemory
  /// Tokens whose memory was found to be free, or taken since.
  private var checked = 0

  /// Capacities are multiples of this many tokens, so that each head's slots begin on a page: a token of a head takes
  /// at least 16 bytes, and a multiple of that.
  private static let granularity = max(1024, ReservedMemory.roundedUpToPages(1) / 16)

  /// Makes an empty cache.
  ///
  /// - Parameters:
  ///   - headDimension: a multiple of 8, as attention asks.
  ///   - capacity: tokens to reserve address space for; the cache grows beyond it when needed.
  /// - Throws: ``LongspanError`` if a size is not positive, or there is no address space.
  public init(
    layers: Int, heads: Int, headDimension: Int, elementType: ElementType = .f32, capacity: Int = 8192
  ) throws(LongspanError) {
    guard layers > 0, heads > 0, headDimension > 0, headDimension % 8 == 0, capacity > 0 else {
      throw LongspanError(
        .badShape,
        "a cache of \(layers) layers, \(heads) heads of \(headDimension) and \(capacity) tokens: each must be positive "
          + "and the head dimension a multiple of 8")
    }
    let whole = try Self.roundedUp(capacity)
    let (pairs, overflowA) = layers.multipliedReportingOverflow(by: 2 * elementType.byteCount)
    let (width, overflowB) = heads.multipliedReportingOverflow(by: headDimension)
    guard !overflowA, !overflowB else {
      throw LongspanError(
        .overflow, "a cache of \(layers) layers, \(heads) heads of \(headDimension) is too large")
    }
    let memory = try ReservedMemory(
      byteCount: Self.byteCount(blocks: pairs, tokens: whole, tokenBytes: width))
    self.layers = layers
    self.heads = heads
    self.headDimension = headDimension
    self.elementType = elementType
    self.capacity = whole
    self.memory = memory
  }

  private static func roundedUp(_ tokens: Int) throws(LongspanError) -> Int {
    let (sum, overflow) = tokens.addingReportingOverflow(granularity - 1)
    guard !overflow else {
      throw LongspanError(.overflow, "a cache of \(tokens) tokens does not fit in 64 bits")
    }
    return sum / granularity * granularity
  }

  private static func byteCount(blocks: Int, tokens: Int, tokenBytes: Int) throws(LongspanError) -> Int {
    let (block, overflowA) = tokens.multipliedReportingOverflow(by: tokenBytes)
    let (bytes, overflowB) = block.multipliedReportingOverflow(by: blocks)
    guard !overflowA, !overflowB else {
      throw LongspanError(.overflow, "a cache of \(tokens) tokens does not fit in 64 bits")
    }
    return bytes
  }

  private var tokenBytes: Int { headDimension * elementType.byteCount }

  /// Bytes of one token in all layers.
  public var bytesPerToken: Int { layers * 2 * heads * tokenBytes }

  /// Bytes of the tokens stored.
  public var byteCount: Int { count * bytesPerToken }

  /// Makes room for `additional` more tokens.
  ///
  /// - Complexity: O(layers x heads) when the capacity must grow, else O(1).
  /// - Throws: ``LongspanError`` with ``LongspanError/Code/insufficientMemory`` if the machine has not that much
  ///   memory free; the cache is unchanged then. If the system fails while pages move, the cache is empty afterwards.
  public mutating func reserve(_ additional: Int) throws(LongspanError) {
    let (needed, overflow) = count.addingReportingOverflow(additional)
    guard additional >= 0, !overflow else {
      throw LongspanError(
        .overflow, "a cache of \(count) and \(additional) more tokens does not fit in 64 bits")
    }
    if needed > checked {
      try SystemMemory.require(
        try Self.byteCount(blocks: layers * 2 * heads, tokens: needed - checked, tokenBytes: tokenBytes),
        for: "the keys and values of \(needed - checked) more tokens")
      checked = needed
    }
    guard needed > capacity else { return }
    let larger = try Self.roundedUp(max(needed, capacity * 2))
    let blocks = layers * 2 * heads
    var grown = try ReservedMemory(
      byteCount: Self.byteCount(blocks: blocks, tokens: larger, tokenBytes: tokenBytes))
    // every block begins on a page and its capacity is whole pages, so whole pages move
    let used = ReservedMemory.roundedUpToPages(count * tokenBytes)
    do throws(LongspanError) {
      for block in 0..<blocks {
        try grown.move(
          used, from: &memory, at: block * capacity * tokenBytes, to: block * larger * tokenBytes)
      }
    } catch {
      // some blocks have left the old reservation, so neither holds all tokens
      count = 0
      throw error
    }
    memory = grown
    capacity = larger
  }

  private func layout(tokens: Int) -> TensorLayout {
    TensorLayout(
      elementType, tokens: tokens, heads: heads, columns: headDimension, tokenStride: headDimension,
      headStride: capacity * headDimension)
  }

  /// The bytes of one layer's keys (0) or values (1) from token `first` on.
  private func range(layer: Int, kind: Int, from first: Int) throws(LongspanError) -> Range<Int> {
    guard layer >= 0, layer < layers else {
      throw LongspanError(.badIndex, "layer \(layer) is outside 0 to \(layers - 1)")
    }
    let bytes = heads * capacity * tokenBytes
    let start = (layer * 2 + kind) * bytes
    return start + first * tokenBytes..<start + bytes
  }

  /// Where the keys of the next `count` tokens of a layer go: `[count, Hk, D]`.
  @_lifetime(&self)
  public mutating func keySlots(layer: Int, count: Int) throws(LongspanError) -> MutableTensorView {
    try slots(layer: layer, kind: 0, count: count)
  }

  /// Where the values of the next `count` tokens of a layer go: `[count, Hk, D]`.
  @_lifetime(&self)
  public mutating func valueSlots(layer: Int, count: Int) throws(LongspanError) -> MutableTensorView {
    try slots(layer: layer, kind: 1, count: count)
  }

  @_lifetime(&self)
  private mutating func slots(layer: Int, kind: Int, count: Int) throws(LongspanError) -> MutableTensorView {
    guard count >= 0, count <= capacity - self.count else {
      throw LongspanError(
        .badShape, "\(count) slots after \(self.count) of \(capacity) tokens: reserve them first")
    }
    let range = try range(layer: layer, kind: kind, from: self.count)
    let layout = layout(tokens: count)
    return try MutableTensorView(memory.mutableBytes(range), layout)
  }

  /// The keys of a layer: those stored and the next `uncommitted` ones, `[count + uncommitted, Hk, D]`.
  @_lifetime(borrow self)
  public func keys(layer: Int, including uncommitted: Int = 0) throws(LongspanError) -> TensorView {
    try tokens(layer: layer, kind: 0, uncommitted: uncommitted)
  }

  /// The values of a layer: those stored and the next `uncommitted` ones, `[count + uncommitted, Hk, D]`.
  @_lifetime(borrow self)
  public func values(layer: Int, including uncommitted: Int = 0) throws(LongspanError) -> TensorView {
    try tokens(layer: layer, kind: 1, uncommitted: uncommitted)
  }

  @_lifetime(borrow self)
  private func tokens(layer: Int, kind: Int, uncommitted: Int) throws(LongspanError) -> TensorView {
    guard uncommitted >= 0, uncommitted <= capacity - count else {
      throw LongspanError(
        .badShape, "\(uncommitted) tokens after \(count) of \(capacity) were never reserved")
    }
    return try TensorView(
      memory.bytes(try range(layer: layer, kind: kind, from: 0)), layout(tokens: count + uncommitted))
  }

  /// Makes the next `tokens` slots part of the cache, once every layer has written them.
  public mutating func commit(_ tokens: Int) throws(LongspanError) {
    guard tokens >= 0, tokens <= capacity - count else {
      throw LongspanError(.badShape, "\(tokens) tokens after \(count) of \(capacity) were never reserved")
    }
    count += tokens
  }

  /// Forgets all but the first `tokens` tokens.
  public mutating func truncate(to tokens: Int) throws(LongspanError) {
    guard tokens >= 0, tokens <= count else {
      throw LongspanError(.badIndex, "a cache of \(count) tokens cannot be cut to \(tokens)")
    }
    count = tokens
  }
}
