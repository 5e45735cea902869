import Longspan
import LongspanKernels
import Testing

@testable import LongspanModels

/// What a sequence of direct multi-token decoding keeps, and how it stops, goes on and goes back.
@Suite struct MultiTokenSequenceTests {
  private let ids: [Int32]

  init() throws { ids = try MultiTokenFixtures.load().ids }

  /// Without thinking layers nothing is added anywhere.
  @Test(arguments: [1, 3], MultiTokenDecoding.Phase.allCases)
  func withoutThinkingLayersAllIsOrdinaryBitForBit(cycle: Int, phase: MultiTokenDecoding.Phase) throws {
    let model = try MultiTokenFixtures.model()
    var workspace = Workspace()
    let lag = try LagRelativeCompression(sink: 1, lag: 3, skippedLayers: [1, 4])
    for policy in [DensePolicy(), lag] as [any KVCachePolicy] {
      for type in ElementType.allCases {
        for early in [0, 2] {
          let decoding = try MultiTokenDecoding(
            cycle: cycle, lateLayers: 5 - early, earlyLayers: early, phase: phase)
          let options = SequenceOptions(policy: policy, cacheType: type)
          let sequences: [any ModelSequence] = [
            try model.makeSequence(options), try model.sequence(decoding, policy: policy, type: type),
          ]
          var results: [[Float]] = []
          for sequence in sequences {
            var logits = try sequence.prompt(ids[..<7], chunk: 4, &workspace)
            logits += try sequence.logits(ids[7..<12], step: 1, model, &workspace)
            logits += try sequence.prompt(ids[12..<14], &workspace)
            logits += try sequence.logits(ids[14...], step: 4, model, &workspace)
            results.append(logits)
          }
          #expect(results[0] == results[1])
          #expect(sequences[0].byteCount == sequences[1].byteCount)
          #expect(sequences[0].slots == sequences[1].slots && sequences[0].count == sequences[1].count)
        }
      }
    }
  }

  /// Counts the writes of each position in each layer, and the steps of each layer.
  private struct CountingPolicy: KVCachePolicy {
    final class Writes: @unchecked Sendable {
      var positions: [Int: [Int: Int]] = [:]
      var steps: [Int: Int] = [:]
    }

    let writes: Writes
    var firstLayer = 0

    var description: String { "counting" }
    var positions: KVPositions { .absolute }
    func check(_ shape: KVShape) {}
    func policy(forLayers layers: Range<Int>) -> any KVCachePolicy {
      Self(writes: writes, firstLayer: layers.lowerBound)
    }
    func stepLength(limit: Int, in cache: borrowing KVCache) -> Int { limit }
    func slots(afterReading tokens: Int, layer: Int) -> Int { tokens }
    mutating func didAppend(
      layer: Int, to cache: inout KVCache, on context: KernelContext, workspace: inout Workspace
    ) -> KVVisibility {
      writes.steps[firstLayer + layer, default: 0] += 1
      for position in cache.count..<cache.slots(layer: layer) {
        writes.positions[firstLayer + layer, default: [:]][position, default: 0] += 1
      }
      return .all
    }
    mutating func didAttend(
      in cache: inout KVCache, on context: KernelContext, workspace: inout Workspace
    ) {}
    mutating func didEndPrefill(
      in cache: inout KVCache, on context: KernelContext, workspace: inout Workspace
    ) {}
    mutating func reset() {}
  }

  /// The keys and values of a layer as f32, `[slots, Hk, D]` each.
  private static func rows(
    _ cache: borrowing KVCache, layer: Int, on context: KernelContext
  ) throws -> [Float] {
    let shape = cache.shape
    let count = cache.slots(layer: layer) * shape.heads * shape.headDimension
    var rows: [Float] = []
    for view in 0..<2 {
      var values = [Float](repeating: 0, count: count)
      var span = values.mutableSpan
      var output = try MutableTensorView(
        span.mutableBytes,
        TensorLayout(tokens: cache.slots(layer: layer), heads: shape.heads, columns: shape.headDimension))
      if view == 0 {
        try context.convert(cache.keys(layer: layer), into: &output)
      } else {
        try context.convert(cache.values(layer: layer), into: &output)
      }
      rows += values
    }
    return rows
  }

  @Test func everyLayerWritesEveryPositionOnce() throws {
    let model = try MultiTokenFixtures.model()
    var workspace = Workspace()
    for decoding in try MultiTokenFixtures.schedules() {
      let writes = CountingPolicy.Writes()
      let sequence = try model.sequence(decoding, policy: CountingPolicy(writes: writes))
      // turns that end within cycles, and a text scored in between
      for (prompt, single, several) in [(5, 7, 0), (1, 1, 0), (3, 0, 5)] {
        let first = sequence.count
        _ = try sequence.prompt(ids[first..<first + prompt], chunk: 2, &workspace)
        _ = try sequence.logits(ids[first + prompt..<sequence.count + single], step: 1, model, &workspace)
        let end = sequence.count
        _ = try sequence.logits(ids[end..<end + several], step: 5, model, &workspace)
        let lag = sequence.count - sequence.thinkingCount
        #expect(lag >= 0 && lag < decoding.cycle)
        for layer in 0..<5 {
          let read = sequence.layerGroups.thinking.contains(layer) ? sequence.thinkingCount : sequence.count
          let expected = Dictionary(uniqueKeysWithValues: (0..<read).map { ($0, 1) })
          #expect(writes.positions[layer] == expected, "\(decoding), layer \(layer)")
        }
      }
      #expect(sequence.count == 22)
      // early and thinking layers hold what a full forward pass of the tokens makes of them
      var full = try model.makeCache()
      _ = try model.hiddenStates(of: Array(ids[..<22]), cache: &full, workspace: &workspace)
      for group in sequence.groups where group !== sequence.late {
        try full.truncate(to: group.cache.count)
        for layer in group.layers {
          let own = try Self.rows(group.cache, layer: layer - group.layers.lowerBound, on: model.context)
          let want = try Self.rows(full, layer: layer, on: model.context)
          #expect(own.count == want.count)
          #expect(
            zip(own, want).allSatisfy { abs($0 - $1) <= 1e-5 * max(1, abs($1)) },
            "\(decoding), layer \(layer)")
        }
      }
    }
  }

  @Test func thinkingLayersRunOnceACycle() throws {
    let model = try MultiTokenFixtures.model()
    var workspace = Workspace()
    let writes = CountingPolicy.Writes()
    let decoding = try MultiTokenDecoding(cycle: 4, lateLayers: 2, earlyLayers: 1)
    let sequence = try model.sequence(decoding, policy: CountingPolicy(writes: writes))
    _ = try sequence.prompt(ids[..<6], &workspace)
    writes.steps = [:]
    _ = try sequence.logits(ids[6..<18], step: 1, model, &workspace)
    #expect(writes.steps == [0: 12, 1: 3, 2: 3, 3: 12, 4: 12])
    #expect(sequence.thinkingCount == 15)
    // the next prompt takes the skipped tokens along in its own pass
    _ = try sequence.prompt(ids[18..<20], &workspace)
    #expect(writes.steps == [0: 13, 1: 4, 2: 4, 3: 13, 4: 13])
    #expect(sequence.thinkingCount == 20)
  }

  /// A stop token within a cycle, a turn after it, and a length limit, against the same text read by its turns.
  @Test func stoppingWithinACycleAndGoingOn() throws {
    let model = try MultiTokenFixtures.model()
    var workspace = Workspace()
    for decoding in try MultiTokenFixtures.schedules(cycles: [3, 4]) {
      var stoppedWithin = false
      for seed in 0..<40 where !stoppedWithin {
        // high temperatures draw the stop token soon
        var generator = try Generator(
          model, sequence: model.sequence(decoding), sampling: SamplingOptions(temperature: 8),
          seed: UInt64(seed))
        try generator.read(Array(ids[..<5]))
        for _ in 0..<200 where !generator.isFinished { _ = try generator.next() }
        let sequence = try #require(generator.sequence as? LlamaMultiTokenSequence)
        let first = generator.generated
        guard generator.isFinished, sequence.thinkingCount < sequence.count else { continue }
        stoppedWithin = true
        // a stop token is not read; every token before it was
        #expect(sequence.count == 5 + first.count)
        try generator.read(Array(ids[5..<8]))
        #expect(sequence.count == 8 + first.count)
        var second = 0
        while second < 6, try generator.next() != nil { second += 1 }
        let drawn = generator.generated.suffix(second)
        try generator.read(Array(ids[8..<10]))
        #expect(sequence.count == 10 + first.count + second)

        let again = try model.sequence(decoding)
        _ = try again.prompt(ids[..<5], &workspace)
        _ = try again.logits(first, step: 512, model, &workspace)
        _ = try again.prompt(ids[5..<8], &workspace)
        _ = try again.logits(drawn.dropLast(), step: 512, model, &workspace)
        // the token drawn last was not read before the next turn: it is part of its prompt
        _ = try again.prompt(drawn.suffix(1) + ids[8..<10], &workspace)
        let mine = try sequence.logits(ids[10...], step: 1, model, &workspace)
        let theirs = try again.logits(ids[10...], step: 512, model, &workspace)
        #expect(relativeError(mine, theirs) < 1e-4, "\(decoding)")
      }
      #expect(stoppedWithin, "\(decoding): no seed stopped within a cycle")
    }
  }

  @Test(arguments: [0, 1, 2, 3]) func snapshotsGoBackIntoACycle(offset: Int) throws {
    let model = try MultiTokenFixtures.model()
    var workspace = Workspace()
    for decoding in try MultiTokenFixtures.schedules(cycles: [4]) {
      let sequence = try model.sequence(decoding)
      _ = try sequence.prompt(ids[..<5], &workspace)
      _ = try sequence.logits(ids[5..<5 + offset], step: 1, model, &workspace)
      let snapshot = try sequence.snapshot()
      #expect(snapshot.count == 5 + offset)
      func goOn(_ sequence: LlamaMultiTokenSequence) throws -> [Float] {
        try sequence.logits(ids[9..<15], step: 1, model, &workspace)
          + sequence.prompt(ids[15..<17], &workspace)
          + sequence.logits(ids[17...], step: 1, model, &workspace)
      }
      let first = try goOn(sequence)
      // a prefix that others share, and the sequence itself after it has read something else
      let other = try model.sequence(decoding)
      try other.restore(snapshot)
      #expect(try goOn(other) == first)
      try sequence.restore(snapshot)
      #expect(sequence.count == 5 + offset)
      _ = try sequence.prompt(ids[20..<23], &workspace)
      try sequence.restore(snapshot)
      #expect(try goOn(sequence) == first)
      // nothing is left of a text that was forgotten
      sequence.begin(expecting: nil)
      #expect(sequence.count == 0 && sequence.thinkingCount == 0 && sequence.byteCount == 0)
      let fresh = try model.sequence(decoding).prompt(ids[..<9], &workspace)
      #expect(try sequence.prompt(ids[..<9], &workspace) == fresh)
    }
  }

  @Test func snapshotsOfOthersAreRefused() throws {
    let model = try MultiTokenFixtures.model()
    var workspace = Workspace()
    let decoding = try MultiTokenDecoding(cycle: 3, lateLayers: 2, earlyLayers: 1)
    let sequence = try model.sequence(decoding)
    _ = try sequence.prompt(ids[..<6], &workspace)
    let others = [
      try model.sequence(MultiTokenDecoding(cycle: 4, lateLayers: 2, earlyLayers: 1)),
      try model.sequence(decoding, policy: LagRelativeCompression(sink: 1, lag: 3, skippedLayers: [4])),
      try model.sequence(decoding, type: .f16),
    ]
    for (other, part) in zip(others, ["cycle=4", "skip=4", "another shape"]) {
      _ = try other.prompt(ids[..<4], &workspace)
      let error = #expect(throws: LongspanError.self) { try sequence.restore(other.snapshot()) }
      #expect(error?.message.contains(part) == true)
      #expect(sequence.count == 6 && sequence.groups.allSatisfy { $0.cache.count == 6 })
    }
  }

  @Test func anOrdinarySequenceGoesBackToo() throws {
    let model = try MultiTokenFixtures.model()
    var workspace = Workspace()
    let sequence = try #require(model.makeSequence() as? LlamaSequence)
    _ = try sequence.prompt(ids[..<5], &workspace)
    let snapshot = try sequence.snapshot()
    let first = try sequence.logits(ids[5...], step: 1, model, &workspace)
    let other = try #require(model.makeSequence() as? LlamaSequence)
    try other.restore(snapshot)
    #expect(try other.logits(ids[5...], step: 1, model, &workspace) == first)
    try sequence.restore(snapshot)
    #expect(sequence.count == 5)
    #expect(try sequence.logits(ids[5...], step: 1, model, &workspace) == first)
  }

  @Test func whatCannotWorkIsRefusedByName() throws {
    let model = try MultiTokenFixtures.model()
    var workspace = Workspace()
    for (late, early, part) in [(6, 0, "late 6"), (3, 3, "early 3 and late 3")] {
      let decoding = try MultiTokenDecoding(cycle: 2, lateLayers: late, earlyLayers: early)
      let error = #expect(throws: LongspanError.self) {
        _ = try model.makeSequence(SequenceOptions(decoding: decoding))
      }
      #expect(error?.message.contains(part) == true)
    }
    let decoding = try MultiTokenDecoding(cycle: 2, lateLayers: 2)
    let mamba = try MambaFixtures.load("mamba")
    let error = #expect(throws: LongspanError.self) {
      _ = try mamba.makeSequence(SequenceOptions(decoding: decoding))
    }
    #expect(error?.code == .unsupported)
    #expect(error?.message.contains("dmtd:cycle=2") == true && error?.message.contains("mamba") == true)
    // a layer that no group has
    let skipping = try LagRelativeCompression(skippedLayers: [5])
    let outside = #expect(throws: LongspanError.self) { _ = try model.sequence(decoding, policy: skipping) }
    #expect(outside?.message.contains("layer 5") == true)

    let sequence = try model.sequence(decoding)
    _ = try sequence.prompt(ids[..<4], &workspace)
    for tokens in [[], [-1], [Int32(model.vocabularySize)]] as [[Int32]] {
      #expect(throws: LongspanError.self) { _ = try sequence.read(tokens, workspace: &workspace) }
      #expect(throws: LongspanError.self) { _ = try sequence.readPrompt(tokens, workspace: &workspace) }
      #expect(sequence.groups.allSatisfy { $0.cache.count == 4 })
    }
    #expect(throws: LongspanError.self) {
      _ = try sequence.readPrompt([1], chunk: 0, workspace: &workspace)
    }
    for tokens in [-1, Int.max, 1 << 50] {
      #expect(throws: LongspanError.self) { try sequence.requireMemory(forReading: tokens) }
    }
    try sequence.requireMemory(forReading: 100)
  }

  @Test func progressCanStopAPrompt() throws {
    let model = try MultiTokenFixtures.model()
    var workspace = Workspace()
    for decoding in try MultiTokenFixtures.schedules(cycles: [3]) {
      let sequence = try model.sequence(decoding)
      let error = #expect(throws: LongspanError.self) {
        _ = try sequence.readPrompt(Array(ids[..<9]), chunk: 2, workspace: &workspace) { $0.completed < 4 }
      }
      #expect(error?.code == .cancelled)
      #expect(sequence.count == 4)
      let rest = try sequence.prompt(ids[4..<9], &workspace)
      let whole = try model.sequence(decoding).prompt(ids[..<9], &workspace)
      #expect(relativeError(rest, whole) < 1e-5)
    }
  }

  /// A text is scored as if it had been generated, whatever the steps.
  @Test func perplexityFollowsTheSchedule() throws {
    let model = try MultiTokenFixtures.model()
    func perplexity(_ decoding: MultiTokenDecoding?, chunk: Int) throws -> Double {
      try PerplexityEvaluation(contextLength: 12, chunk: chunk, decoding: decoding).run(model, tokens: ids)
        .perplexity
    }
    let ordinary = try perplexity(nil, chunk: 5)
    #expect(try perplexity(MultiTokenDecoding(cycle: 4, lateLayers: 5), chunk: 5) == ordinary)
    let decoding = try MultiTokenDecoding(cycle: 4, lateLayers: 2, earlyLayers: 1)
    let scheduled = try perplexity(decoding, chunk: 1)
    #expect(abs(scheduled / ordinary - 1) > 1e-3)
    for chunk in [3, 4, 12] { #expect(abs(try perplexity(decoding, chunk: chunk) / scheduled - 1) < 1e-5) }
  }
}
