import LongspanKernels
import Testing

@Suite struct SparseAttentionTests {
  private struct Operands {
    let queries: [Float]
    let keys: [Float]
    let values: [Float]
    let tokens: Int
    let slots: Int
    static let heads = 4
    static let keyHeads = 2
    static let d = 16

    init(tokens: Int, slots: Int, seed: UInt64) {
      var random = SplitMix64(seed: seed)
      queries = random.floats(tokens * Self.heads * Self.d)
      keys = random.floats(slots * Self.keyHeads * Self.d)
      values = random.floats(slots * Self.keyHeads * Self.d)
      self.tokens = tokens
      self.slots = slots
    }

    /// Attention to some keys, or to all.
    func attend(
      _ method: AttentionMethod, to selected: KeyLists? = nil, through windows: LagWindows? = nil,
      batch: RaggedBatch? = nil, options: AttentionOptions = AttentionOptions(), keys other: [Float]? = nil,
      on context: KernelContext
    ) throws -> [Float] {
      let keys = other ?? keys
      var output = [Float](repeating: .nan, count: queries.count)
      var workspace = Workspace()
      var span = output.mutableSpan
      let q = try TensorView(queries.span, tokens: tokens, heads: Self.heads, columns: Self.d)
      let k = try TensorView(keys.span, tokens: slots, heads: Self.keyHeads, columns: Self.d)
      let v = try TensorView(values.span, tokens: slots, heads: Self.keyHeads, columns: Self.d)
      if let selected {
        try context.attend(
          method, to: selected, queries: q, keys: k, values: v, batch: batch, options: options,
          workspace: &workspace, into: &span)
      } else if let windows {
        try context.attend(
          through: windows, queries: q, keys: k, values: v, options: options, workspace: &workspace,
          into: &span)
      } else {
        try context.attend(
          method, queries: q, keys: k, values: v, batch: batch, options: options, workspace: &workspace,
          into: &span)
      }
      return output
    }
  }

  private func largest(_ a: [Float], _ b: [Float]) -> Float { zip(a, b).map { abs($0 - $1) }.max() ?? 0 }

  @Test(
    arguments: KernelContext.variants.filter(\.isSupported).map(\.name), [AttentionMethod.prefill, .decode])
  func listsOfAllKeysAreDense(isa: String, method: AttentionMethod) throws {
    let context = try KernelContext(threads: 2, isa: isa)
    let operands = Operands(tokens: 5, slots: 70, seed: 3)
    let dense = try operands.attend(method, on: context)
    // a list of tokens backwards, and blocks of which the last is cut short
    let tokens = SlotLists(indices: (0..<70).reversed().map { Int32($0) }, offsets: [0, 70])
    let blocks = SlotLists(indices: [3, 0, 4, 1, 2, 0, 1, 2, 3, 4], offsets: [0, 5, 10])
    for lists in [KeyLists(tokens), KeyLists(blocks, block: 16, heads: 2)] {
      let sparse = try operands.attend(method, to: lists, on: context)
      #expect(largest(sparse, dense) < 1e-6)
    }
  }

  @Test func keysThatAreNotListedDoNotCount() throws {
    let context = try KernelContext(threads: 2)
    var operands = Operands(tokens: 3, slots: 40, seed: 5)
    let lists = KeyLists(SlotLists(indices: [1, 9, 30, 2, 20], offsets: [0, 3, 5]), heads: 2)
    for method in [AttentionMethod.prefill, .decode] {
      let before = try operands.attend(method, to: lists, on: context)
      var keys = operands.keys
      for slot in 0..<40 where ![1, 9, 30].contains(slot) {
        for column in 0..<16 { keys[slot * 32 + column] = .nan }
      }
      #expect(try operands.attend(method, to: lists, keys: keys, on: context) == before)
    }
    operands = Operands(tokens: 3, slots: 40, seed: 6)
    let windows = LagWindows(
      leading: 2, lag: 10, rawWindows: 1, keep: 1, keptWindows: 3, kept: [5, 15, 25, 6, 16, 26])
    let before = try operands.attend(.prefill, through: windows, on: context)
    // queries 37 to 39 see slots 0, 1, 5 (6), 15 (16), 25 (26) and 32 and on
    var keys = operands.keys
    for slot in [2, 4, 7, 14, 24, 31] { for column in 0..<32 { keys[slot * 32 + column] = .nan } }
    #expect(try operands.attend(.prefill, through: windows, keys: keys, on: context) == before)
  }

  @Test func headsHaveTheirOwnLengths() throws {
    let context = try KernelContext(threads: 2)
    let operands = Operands(tokens: 2, slots: 30, seed: 7)
    for method in [AttentionMethod.prefill, .decode] {
      let ragged = try operands.attend(
        method, batch: RaggedBatch(queryOffsets: [0, 2], keyOffsets: [0, 30], keyLengths: [12, 30]),
        on: context)
      var whole: [[Float]] = []
      for length in [12, 30] {
        // the same with all heads of one length
        whole.append(
          try operands.attend(
            method,
            batch: RaggedBatch(
              queryOffsets: [0, 2], keyOffsets: [0, 30], keyLengths: [Int64(length), Int64(length)]),
            on: context))
      }
      for index in ragged.indices {
        #expect(abs(ragged[index] - whole[index / 16 % 4 / 2][index]) < 1e-6)
      }
    }
    #expect(throws: LongspanError.self) {
      _ = try operands.attend(
        .decode, batch: RaggedBatch(queryOffsets: [0, 2], keyOffsets: [0, 30], keyLengths: [31, 1]),
        on: context)
    }
    #expect(throws: LongspanError.self) {
      _ = try operands.attend(
        .decode, batch: RaggedBatch(queryOffsets: [0, 2], keyOffsets: [0, 30], keyLengths: [3]), on: context)
    }
  }

  @Test func keysRotateAsTheyAreRead() throws {
    let context = try KernelContext(threads: 2)
    let operands = Operands(tokens: 2, slots: 30, seed: 8)
    let frequencies: [Float] = [1, 0.3, 0.05, 0.01]
    let places = (0..<30).map { Int32($0 * $0 % 37) }
    for layout in [RotaryLayout.halves, .interleaved] {
      for slots in [[], places] {
        let positions = slots.isEmpty ? (0..<30).map { Int32($0) } : slots
        var rotated = [Float](repeating: 0, count: operands.keys.count)
        do {
          let table = try RotaryTable(positions: positions.map(Int64.init), inverseFrequencies: frequencies)
          var span = rotated.mutableSpan
          var view = try MutableTensorView(span.mutableBytes, TensorLayout(tokens: 30, heads: 2, columns: 16))
          try context.rotate(
            TensorView(operands.keys.span, tokens: 30, heads: 2, columns: 16), by: table, layout: layout,
            into: &view)
        }
        let rotation = try KeyRotation(
          rows: 40, inverseFrequencies: frequencies, layout: layout, slots: slots)
        for method in [AttentionMethod.prefill, .decode] {
          let want = try operands.attend(method, keys: rotated, on: context)
          let have = try operands.attend(
            method, options: AttentionOptions(keyRotation: rotation), on: context)
          #expect(largest(want, have) < 1e-6)
        }
      }
    }
    let short = try KeyRotation(rows: 10, inverseFrequencies: frequencies, layout: .halves)
    #expect(throws: LongspanError.self) {
      _ = try operands.attend(.decode, options: AttentionOptions(keyRotation: short), on: context)
    }
  }

  @Test func refusesWhatDoesNotFit() throws {
    let context = try KernelContext(threads: 1)
    let operands = Operands(tokens: 3, slots: 40, seed: 9)
    let wrong = [
      KeyLists(SlotLists(indices: [40], offsets: [0, 1])),
      KeyLists(SlotLists(indices: [-1], offsets: [0, 1])),
      KeyLists(SlotLists(indices: [1], offsets: [0, 2])), KeyLists(SlotLists(indices: [1], offsets: [0])),
      KeyLists(SlotLists(indices: [1], offsets: [1, 1])),
      KeyLists(SlotLists(indices: [1], offsets: [0, 1]), block: 0),
      KeyLists(SlotLists(indices: [1], offsets: [0, 1, 1, 1]), heads: 3),
      KeyLists(SlotLists(indices: [1], offsets: [0, 1]), queryTokens: 0),
      KeyLists(SlotLists(indices: [1], offsets: [0, 1]), queryTokens: 1),
    ]
    for lists in wrong {
      for method in [AttentionMethod.prefill, .decode] {
        #expect(throws: LongspanError.self) { _ = try operands.attend(method, to: lists, on: context) }
      }
    }
    let windows = LagWindows(
      leading: 2, lag: 10, rawWindows: 2, keep: 1, keptWindows: 3, kept: [5, 15, 25, 6, 16, 26])
    var bad = windows
    bad.kept[1] = 5
    #expect(throws: LongspanError.self) { _ = try operands.attend(.prefill, through: bad, on: context) }
    bad = windows
    bad.keptWindows = 4
    #expect(throws: LongspanError.self) { _ = try operands.attend(.prefill, through: bad, on: context) }
    bad = windows
    bad.leading = 41
    #expect(throws: LongspanError.self) { _ = try operands.attend(.prefill, through: bad, on: context) }
  }
}
