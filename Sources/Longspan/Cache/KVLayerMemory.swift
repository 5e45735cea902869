import LongspanKernels

/// The memory of one layer: keys `[Hk, capacity, D]`, values alike, and positions `[Hk, capacity]` as Int32.
///
/// Address space for the capacity is reserved at once, but memory is taken only for what has been written. Shared by
/// forks and snapshots of a cache; whoever writes must first be its only owner.
final class KVLayerMemory {
  let capacity: Int
  private let shape: KVShape
  let memory: ReservedMemory

  /// Capacities are multiples of this many slots, so that each head's slots and positions begin on a page: a slot of a
  /// head takes at least 16 bytes and a multiple of that, its position 4.
  static let granularity = max(1024, ReservedMemory.roundedUpToPages(1) / 4)

  /// - Parameter capacity: slots, rounded up.
  init(_ shape: KVShape, capacity: Int) throws(LongspanError) {
    let whole = try Self.roundedUp(capacity)
    memory = try ReservedMemory(byteCount: Self.byteCount(shape, whole))
    self.shape = shape
    self.capacity = whole
  }

  private static func roundedUp(_ slots: Int) throws(LongspanError) -> Int {
    let (sum, overflow) = slots.addingReportingOverflow(granularity - 1)
    // slots are counted in 32 bits by index lists
    guard !overflow, sum <= Int(Int32.max) else {
      throw LongspanError(.overflow, "a cache of \(slots) slots is too large; 2^31 is the most")
    }
    return sum / granularity * granularity
  }

  private static func byteCount(_ shape: KVShape, _ slots: Int) throws(LongspanError) -> Int {
    let (bytes, overflow) = slots.multipliedReportingOverflow(by: shape.layerBytesPerToken + 4 * shape.heads)
    guard !overflow else {
      throw LongspanError(.overflow, "a cache of \(slots) slots does not fit in 64 bits")
    }
    return bytes
  }

  /// A copy of the first `slots` slots with another capacity.
  func copy(slots: Int, withPositions: Bool, capacity: Int) throws(LongspanError) -> KVLayerMemory {
    let copy = try KVLayerMemory(shape, capacity: capacity)
    for (from, to) in zip(blocks(withPositions), copy.blocks(withPositions)) {
      try copy.memory.copy(slots * from.slotBytes, from: memory, at: from.start, to: to.start)
    }
    return copy
  }

  /// Larger memory with the first `slots` slots, whose pages leave this one without being copied.
  ///
  /// - Parameter isMoving: set once pages may have left; if this throws afterwards, tokens are lost.
  func grown(
    to capacity: Int, slots: Int, withPositions: Bool, isMoving: inout Bool
  ) throws(LongspanError) -> KVLayerMemory {
    let larger = try KVLayerMemory(shape, capacity: capacity)
    isMoving = true
    for (old, new) in zip(blocks(withPositions), larger.blocks(withPositions)) {
      // every block begins on a page and its capacity is whole pages, so whole pages move
      try larger.memory.move(
        ReservedMemory.roundedUpToPages(slots * old.slotBytes), from: memory, at: old.start, to: new.start)
    }
    return larger
  }

  private func blocks(_ withPositions: Bool) -> [(start: Int, slotBytes: Int)] {
    let rows = (0..<2 * shape.heads).map { ($0 * capacity * shape.rowBytes, shape.rowBytes) }
    return withPositions ? rows + (0..<shape.heads).map { (positionsOffset + $0 * capacity * 4, 4) } : rows
  }

  /// Where the positions begin, in bytes.
  var positionsOffset: Int { 2 * shape.heads * capacity * shape.rowBytes }

  /// Slots first ..< end of all heads: keys are kind 0, values 1.
  func place(kind: Int, _ slots: Range<Int>) -> TensorPlace {
    TensorPlace(
      byteOffset: (kind * shape.heads * capacity + slots.lowerBound) * shape.rowBytes,
      layout: layout(slots.count, heads: shape.heads))
  }

  /// The same of one head.
  func place(kind: Int, head: Int, _ slots: Range<Int>) -> TensorPlace {
    TensorPlace(
      byteOffset: ((kind * shape.heads + head) * capacity + slots.lowerBound) * shape.rowBytes,
      layout: layout(slots.count, heads: 1))
  }

  private func layout(_ tokens: Int, heads: Int) -> TensorLayout {
    TensorLayout(
      shape.elementType, tokens: tokens, heads: heads, columns: shape.headDimension,
      tokenStride: shape.headDimension, headStride: capacity * shape.headDimension)
  }

  // What follows is for the only owner of this memory.

  func withMutableBytes(
    _ body: (inout MutableRawSpan) throws(LongspanError) -> Void
  ) throws(LongspanError) {
    try memory.withMutableBytes(0..<memory.byteCount, body)
  }

  /// Writes a place.
  func write(
    _ place: TensorPlace, _ body: (inout MutableTensorView) throws(LongspanError) -> Void
  ) throws(LongspanError) {
    try memory.write(place, body)
  }

  /// Writes the positions of consecutive tokens into consecutive slots of a head.
  func writePositions(head: Int, from slot: Int, _ positions: Range<Int>) throws(LongspanError) {
    let start = positionsOffset + 4 * (head * capacity + slot)
    try memory.withMutableBytes(start..<start + 4 * positions.count) { bytes throws(LongspanError) in
      for (index, position) in positions.enumerated() {
        bytes.storeBytes(of: Int32(truncatingIfNeeded: position), toByteOffset: 4 * index, as: Int32.self)
      }
    }
  }
}

// Written only by a cache that is its only owner.
extension KVLayerMemory: Sendable {}
