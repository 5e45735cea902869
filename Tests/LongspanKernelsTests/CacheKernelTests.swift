import LongspanKernels
import Testing

@Suite struct CacheKernelTests {
  @Test func choosesTheHighest() throws {
    let context = try KernelContext(threads: 2)
    var workspace = Workspace()
    let scores: [Float] = [1, 5, 3, 5, 2, 9, 9, 0, 1, 1]
    func select(_ scope: SelectionScope, forced: [Range<Int>] = [], offsets: [Int32] = []) throws -> SlotLists
    {
      try context.select(
        scope, scores: scores.span, rows: 2, tokens: 5, forced: forced, rowOffsets: offsets,
        workspace: &workspace)
    }
    #expect(try select(.row(keep: 2)) == SlotLists(indices: [1, 3, 0, 1], offsets: [0, 2, 4]))
    #expect(
      try select(.row(keep: 2), forced: [0..<1, 4..<5], offsets: [10, 20])
        == SlotLists(indices: [10, 14, 20, 24], offsets: [0, 2, 4]))
    // sums 10, 14, 3, 6, 3
    #expect(try select(.shared(keep: 3)) == SlotLists(indices: [0, 1, 3], offsets: [0, 3]))
    #expect(try select(.joint(keep: 3)) == SlotLists(indices: [1, 0, 1], offsets: [0, 1, 3]))
    #expect(try select(.threshold(3, keep: 0)) == SlotLists(indices: [1, 2, 3, 0, 1], offsets: [0, 3, 5]))
    let lists = try select(.threshold(6, keep: 1))
    #expect(lists == SlotLists(indices: [1, 0, 1], offsets: [0, 1, 3]))
    #expect(lists.count == 2 && Array(lists[1]) == [0, 1])
    #expect(throws: LongspanError.self) { _ = try select(.row(keep: 6)) }
    #expect(throws: LongspanError.self) { _ = try select(.row(keep: -1)) }
    #expect(throws: LongspanError.self) { _ = try select(.row(keep: 1), forced: [0..<2]) }
    #expect(throws: LongspanError.self) { _ = try select(.row(keep: 5), forced: [3..<4, 1..<2]) }
    #expect(throws: LongspanError.self) { _ = try select(.threshold(.nan, keep: 1)) }
    #expect(throws: LongspanError.self) { _ = try select(.row(keep: 1), offsets: [1]) }
  }

  @Test func movesKeysToOtherPositionsAndBack() throws {
    let context = try KernelContext(threads: 2)
    var random = SplitMix64(seed: 4)
    let plain = random.floats(6 * 2 * 8)
    let frequencies: [Float] = [0.7, 0.1, 0.02]
    let layout = TensorLayout(tokens: 6, heads: 2, columns: 8)
    func rotated(_ positions: [Int64]) throws -> [Float] {
      var keys = [Float](repeating: 0, count: plain.count)
      var span = keys.mutableSpan
      var view = try MutableTensorView(span.mutableBytes, layout)
      try context.rotate(
        TensorView(plain.span, tokens: 6, heads: 2, columns: 8),
        by: RotaryTable(positions: positions, inverseFrequencies: frequencies), layout: .interleaved,
        into: &view)
      return keys
    }
    let positions: [Int64] = [3, 4, 9, 20, 21, 40]
    let shifts: [Int32] = [0, 0, -4, -14, -14, -32]
    let table = try RotaryTable(positions: (-32...0).map { $0 }, inverseFrequencies: frequencies)
    var keys = try rotated(positions)
    let before = keys
    for inverse in [false, true] {
      var span = keys.mutableSpan
      var view = try MutableTensorView(span.mutableBytes, layout)
      try context.shiftPositions(
        of: &view, by: shifts.span, table: table, tableStart: -32, layout: .interleaved, inverse: inverse)
      let want = inverse ? before : try rotated([3, 4, 5, 6, 7, 8])
      #expect(zip(keys, want).allSatisfy { abs($0 - $1) < 1e-6 })
    }
    let beyond: [Int32] = [0, 0, 0, 0, 0, 1]
    #expect(throws: LongspanError.self) {
      var span = keys.mutableSpan
      var view = try MutableTensorView(span.mutableBytes, layout)
      try context.shiftPositions(of: &view, by: beyond.span, table: table, tableStart: -32, layout: .halves)
    }
  }
}
