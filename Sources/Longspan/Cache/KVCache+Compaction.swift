import LongspanKernels

/// Angles of the shifts by which compaction moves keys: `first` ..< 0 and 0.
final class ShiftTable: Sendable {
  let first: Int
  let table: RotaryTable

  init(first: Int, _ inverseFrequencies: [Float]) throws(LongspanError) {
    self.first = first
    table = try RotaryTable(
      positions: (Int64(first)...0).map { $0 }, inverseFrequencies: inverseFrequencies)
  }
}

extension KVCache {
  /// LagKV scores of windows of a layer's slots, each against the window behind it (arXiv 2504.04704).
  ///
  /// - Parameters:
  ///   - slot: the first slot of the first window.
  ///   - lag: slots of a window.
  ///   - windows: windows to score; one more must be there.
  /// - Returns: `[Hk, windows, lag]`.
  public func lagScores(
    layer: Int, from slot: Int, lag: Int, windows: Int, valueWeight: Float, on context: KernelContext,
    workspace: inout Workspace
  ) throws(LongspanError) -> AlignedBuffer<Float> {
    var scores = try AlignedBuffer<Float>(count: shape.heads * windows * lag)
    var span = scores.mutableSpan
    try context.lagScores(
      keys: keys(layer: layer, from: slot), values: values(layer: layer, from: slot), window: lag,
      windows: windows, valueWeight: valueWeight, workspace: &workspace, into: &span)
    return scores
  }

  /// Keeps listed slots of a layer and those of a tail, and gives up all others from a slot on.
  ///
  /// - Parameters:
  ///   - lists: one for all heads or one for each: slots in ascending order, the first at `destination` or behind it.
  ///   - destination: the slot where the first entry of each list goes.
  ///   - tail: the first slot of those at the end that all heads keep; all heads must have as many slots.
  public mutating func compact(
    layer index: Int, keeping lists: SlotLists, from destination: Int, tail: Int, on context: KernelContext
  ) throws(LongspanError) {
    try checkLayer(index)
    let slots = layers[index].slots
    guard !layers[index].isRagged || tail == slots, tail <= slots,
      lists.count == 1 || lists.count == shape.heads,
      destination >= 0, destination <= tail
    else {
      throw LongspanError(
        .badIndex,
        "\(lists.count) lists, slot \(destination) and a tail from slot \(tail) on do not go with \(slots) slots"
      )
    }
    try own(layer: index)
    isCompactedInStep = true
    if !layers[index].hasPositions { try storePositions(layer: index) }
    let memory = layers[index].memory
    let keys = memory.place(kind: 0, 0..<slots)
    let values = memory.place(kind: 1, 0..<slots)
    try memory.withMutableBytes { bytes throws(LongspanError) in
      try context.compact(
        lists, destination: destination, tail: tail..<slots, in: &bytes, keys: keys, values: values,
        positions: (memory.positionsOffset, memory.capacity))
    }
    for head in 0..<shape.heads {
      layers[index].lengths[head] = destination + lists[lists.count == 1 ? 0 : head].count + slots - tail
    }
    lastCompaction = count
    if policy.positions == .renumbered {
      try renumber(layer: index, lists, from: destination, tail: tail..<slots, on: context)
    }
  }

  /// Until slots are first given up, the position of each token is its slot.
  private mutating func storePositions(layer index: Int) throws(LongspanError) {
    for head in 0..<shape.heads {
      try layers[index].memory.writePositions(head: head, from: 0, 0..<layers[index].lengths[head])
    }
    layers[index].hasPositions = true
  }

  /// Turns the keys that have moved to the positions of their new slots.
  private mutating func renumber(
    layer index: Int, _ lists: SlotLists, from destination: Int, tail: Range<Int>, on context: KernelContext
  ) throws(LongspanError) {
    guard let rotary else { return }
    let moved = layers[index].slots - destination
    guard moved > 0 else { return }
    var by = [Int32](repeating: 0, count: shape.heads * moved)
    var least: Int32 = 0
    for head in 0..<shape.heads {
      let list = lists[lists.count == 1 ? 0 : head]
      var place = head * moved
      for (entry, slot) in list.enumerated() {
        by[place] = Int32(destination + entry) - slot
        least = min(least, by[place])
        place += 1
      }
      let shift = Int32(destination + list.count - tail.lowerBound)
      for _ in tail {
        by[place] = shift
        place += 1
      }
      if !tail.isEmpty { least = min(least, shift) }
    }
    if shifts.map({ $0.first > least }) ?? true {
      shifts = try ShiftTable(first: Int(least), rotary.inverseFrequencies)
    }
    guard let shifts else { return }
    let memory = layers[index].memory
    let bySpan = by.span
    try memory.write(memory.place(kind: 0, destination..<destination + moved)) {
      keys throws(LongspanError) in
      try context.shiftPositions(
        of: &keys, by: bySpan, table: shifts.table, tableStart: shifts.first, layout: rotary.layout)
    }
  }
}
