import Longspan
import LongspanKernels
import Testing

@testable import LongspanModels

/// Lag-relative compression in a model: exact where it must be, and the same however a text is read.
@Suite struct LagModelTests {
  static let tiny = TestFiles.fixture("tiny/untied.gguf").path

  static func tokens(_ count: Int, below: Int = 60, seed: Int = 1) -> [Int32] {
    (0..<count).map { Int32(($0 * $0 * 7 + $0 * 13 * seed + 5) % below) }
  }

  static func policy(
    _ ratio: Double = 0.5, mode: LagRelativeCompression.Mode = .useThenCompress,
    prefill: LagRelativeCompression.Prefill = .chunked, positions: KVPositions = .absolute,
    skipped: Set<Int> = []
  ) throws -> LagRelativeCompression {
    try LagRelativeCompression(
      sink: 3, lag: 8, ratio: ratio, skippedLayers: skipped, mode: mode, prefill: prefill,
      positions: positions)
  }

  /// The hidden states of every token, read in steps of at most `step`.
  static func states(
    _ model: LlamaModel, _ policy: any KVCachePolicy, _ tokens: [Int32], step: Int,
    type: ElementType = .f32
  ) throws -> (states: [Float], slots: [Int]) {
    var cache = try model.makeCache(policy: policy, elementType: type)
    var workspace = Workspace()
    var states: [Float] = []
    while cache.count < tokens.count {
      let count = cache.stepLength(limit: min(step, tokens.count - cache.count))
      let part = Array(tokens[cache.count..<cache.count + count])
      states += try model.hiddenStates(of: part, cache: &cache, workspace: &workspace).array()
    }
    return (states, (0..<cache.shape.layers).map { cache.slots(layer: $0) })
  }

  @Test(arguments: ElementType.allCases) func allKeptIsDenseBitForBit(type: ElementType) throws {
    let model = try LlamaModel(path: Self.tiny)
    let tokens = Self.tokens(70)
    var workspace = Workspace()
    for prefill in LagRelativeCompression.Prefill.allCases {
      var logits: [[Float]] = []
      for policy in [DensePolicy(), try Self.policy(1, prefill: prefill)] as [any KVCachePolicy] {
        var cache = try model.makeCache(policy: policy, elementType: type)
        var rows = try model.prefill(tokens, into: &cache, chunk: 64, workspace: &workspace).array()
        for token in Self.tokens(40, seed: 3) {
          let hidden = try model.hiddenStates(of: [token], cache: &cache, workspace: &workspace)
          rows += try model.logits(of: hidden, rows: 0..<1, workspace: &workspace).array()
        }
        #expect(cache.mostSlots == 110)
        logits.append(rows)
      }
      #expect(logits[0] == logits[1])
    }
  }

  /// One step under the chunk mask, and steps of any length, against window after window through the cache.
  @Test(arguments: [1, 5, 8, 13, 24, 200]) func stepsDoNotMatter(step: Int) throws {
    let model = try LlamaModel(path: Self.tiny)
    let tokens = Self.tokens(131)
    for skipped in [[], [1]] as [Set<Int>] {
      let policy = try Self.policy(skipped: skipped)
      // the first chunk is the sinks and two windows, then a window at a time
      var cache = try model.makeCache(policy: policy)
      var workspace = Workspace()
      var want: [Float] = []
      while cache.count < tokens.count {
        let count = min(cache.count == 0 ? 19 : 8, tokens.count - cache.count)
        let part = Array(tokens[cache.count..<cache.count + count])
        want += try model.hiddenStates(of: part, cache: &cache, workspace: &workspace).array()
        #expect(cache.slots(layer: 0) == policy.slots(afterReading: cache.count))
      }
      let (states, slots) = try Self.states(model, policy, tokens, step: step)
      #expect(relativeError(states, want) < 1e-5)
      #expect(slots == (0..<2).map { policy.slots(afterReading: 131, layer: $0) })
      #expect(skipped.isEmpty || slots[1] == 131)
      // and it is not what a dense cache gives
      let dense = try Self.states(model, DensePolicy(), tokens, step: step).states
      #expect(relativeError(states, dense) > 1e-3)
    }
  }

  @Test(arguments: LagRelativeCompression.Mode.allCases, KVPositions.allCases)
  func everyModeReadsAndGenerates(mode: LagRelativeCompression.Mode, positions: KVPositions) throws {
    let model = try LlamaModel(path: Self.tiny)
    for type in ElementType.allCases {
      let policy = try Self.policy(0.25, mode: mode, positions: positions, skipped: [1])
      var generator = try Generator(
        model, sampling: .greedy, seed: 0, policy: policy, cacheType: type, ignoringEnd: true)
      // several turns
      for turn in 1...3 {
        try generator.read(Self.tokens(50, seed: turn), chunk: 30)
        for _ in 0..<20 { _ = try generator.next() }
      }
      let tokens = 3 * 70 - 1
      let sequence = try #require(generator.sequence as? LlamaSequence)
      #expect(sequence.cache.count == tokens)
      #expect(sequence.cache.slots(layer: 0) == policy.slots(afterReading: tokens))
      #expect(sequence.cache.slots(layer: 1) == tokens)
      let next = sequence.cache.nextPosition(layer: 0)
      #expect(next == (positions == .absolute ? tokens : policy.slots(afterReading: tokens)))
      for head in 0..<sequence.cache.shape.heads {
        var last = -1
        for slot in 0..<sequence.cache.slots(layer: 0) {
          let position = try sequence.cache.position(layer: 0, head: head, slot: slot)
          #expect(position > last)
          last = position
        }
        #expect(last == tokens - 1)
      }
    }
  }

  /// Renumbered keys are those that a model would make at the positions of their slots: the rotation of what was kept.
  @Test func renumberedKeysStandAtTheirSlots() throws {
    let model = try LlamaModel(path: Self.tiny)
    let tokens = Self.tokens(75)
    var workspace = Workspace()
    let policy = try Self.policy(positions: .renumbered)
    var cache = try model.makeCache(policy: policy)
    while cache.count < tokens.count {
      let count = cache.stepLength(limit: tokens.count - cache.count)
      let part = Array(tokens[cache.count..<cache.count + count])
      _ = try model.hiddenStates(of: part, cache: &cache, workspace: &workspace)
    }
    // in the first layer keys depend on tokens and positions alone: take them from caches of one token
    let shape = cache.shape
    let width = shape.headDimension
    let slots = cache.slots(layer: 0)
    #expect(slots == policy.slots(afterReading: 75))
    let held = try Self.keys(cache, on: model.context)
    for head in 0..<shape.heads {
      for slot in 0..<slots {
        let token = tokens[try cache.position(layer: 0, head: head, slot: slot)]
        var dense = try model.makeCache()
        let filler = [Int32](repeating: 1, count: slot)
        _ = try model.hiddenStates(of: filler + [token], cache: &dense, workspace: &workspace)
        let fresh = try Self.keys(dense, on: model.context)
        let want = fresh[(head * (slot + 1) + slot) * width..<(head * (slot + 1) + slot + 1) * width]
        let have = held[(head * slots + slot) * width..<(head * slots + slot + 1) * width]
        #expect(relativeError(have, want) < 1e-5, "head \(head), slot \(slot)")
      }
    }
  }

  /// The keys of the first layer, `[Hk, slots, D]`.
  private static func keys(_ cache: borrowing KVCache, on context: KernelContext) throws -> [Float] {
    let shape = cache.shape
    let slots = cache.slots(layer: 0)
    var keys = [Float](repeating: 0, count: shape.heads * slots * shape.headDimension)
    var span = keys.mutableSpan
    var output = try MutableTensorView(
      span.mutableBytes,
      TensorLayout(
        tokens: slots, heads: shape.heads, columns: shape.headDimension, tokenStride: shape.headDimension,
        headStride: slots * shape.headDimension))
    try context.convert(cache.keys(layer: 0), into: &output)
    return keys
  }

  @Test func stepsThatWouldSeeOtherPositionsAreRefused() throws {
    let model = try LlamaModel(path: Self.tiny)
    var workspace = Workspace()
    for policy in [try Self.policy(positions: .renumbered), try Self.policy(mode: .compressFirst)] {
      var cache = try model.makeCache(policy: policy)
      let error = #expect(throws: LongspanError.self) {
        _ = try model.hiddenStates(of: Self.tokens(40), cache: &cache, workspace: &workspace)
      }
      #expect(error?.message.contains("in one step") == true)
      #expect(cache.count == 0 && cache.mostSlots == 0)
      _ = try model.prefill(Self.tokens(40), into: &cache, workspace: &workspace)
      #expect(cache.count == 40)
    }
  }

  @Test func rollingBackStopsAtCompression() throws {
    let model = try LlamaModel(path: Self.tiny)
    var workspace = Workspace()
    var cache = try model.makeCache(policy: try Self.policy())
    _ = try model.prefill(Self.tokens(18), into: &cache, workspace: &workspace)
    let snapshot = try cache.snapshot()
    let draft = Self.tokens(6, seed: 9)
    var states: [[Float]] = []
    for _ in 0..<2 {
      states.append(try model.hiddenStates(of: draft, cache: &cache, workspace: &workspace).array())
      let error = #expect(throws: LongspanError.self) { try cache.truncate(to: 20) }
      #expect(error?.message.contains("compressed when it had read 24 tokens") == true)
      try cache.restore(snapshot)
      #expect(cache.count == 18 && cache.mostSlots == 18)
    }
    #expect(states[0] == states[1])
  }
}

/// The same on SmolLM2.
@Suite(.serialized, .enabled(if: TestFiles.runsModelTests, Comment(rawValue: TestFiles.modelTestsComment)))
struct LagSmolLM2Tests {
  private func novel(_ count: Int, _ model: LlamaModel) throws -> [Int32] {
    let text = try TextFile.read(TestFiles.novel.path)
    return Array(model.tokenizer.encode(text, parsingSpecialTokens: false).prefix(count))
  }

  /// Every layer's kept sets equal the float64 oracle's on transformers' keys and values, but where its scores at the
  /// boundary are closer than the two models' keys and values.
  @Test func keepsWhatTheOracleKeepsInEveryLayer() throws {
    let model = try LlamaModel(path: TestFiles.modelPath, storage: .exact)
    let oracle = try LagKVFixtures.model().whole
    let blobs = try LagKVFixtures.Blobs("smollm2")
    let p = oracle.parameters
    let kept = blobs.integers(oracle.arrays.kept)
    let gaps = blobs.floats(oracle.arrays.gaps)
    var cache = try model.makeCache(policy: try p.policy(prefill: .oneShot))
    var workspace = Workspace()
    _ = try model.prefill(try novel(p.tokens, model), into: &cache, workspace: &workspace)
    let windows = oracle.arrays.gaps.shape[2]
    var compared = 0
    for layer in 0..<model.configuration.layers {
      #expect(cache.slots(layer: layer) == p.keptSlots)
      for head in 0..<p.heads {
        for window in 0..<windows {
          let row = (layer * p.heads + head) * windows + window
          if gaps[row] < 2e-5 { continue }
          compared += 1
          for entry in 0..<p.keep {
            let slot = p.sink + window * p.keep + entry
            let want = kept[(layer * p.heads + head) * p.keptSlots + slot]
            #expect(try cache.position(layer: layer, head: head, slot: slot) == want)
          }
        }
      }
    }
    print(
      "SmolLM2: kept sets of \(compared) of \(gaps.count) windows compared, all but those of a gap below 2e-5"
    )
    #expect(compared > gaps.count * 9 / 10)
  }

  @Test func allKeptIsDenseBitForBit() throws {
    let model = try LlamaModel(path: TestFiles.modelPath, storage: .exact)
    let tokens = try novel(700, model)
    var workspace = Workspace()
    var logits: [[Float]] = []
    let all = try LagRelativeCompression(sink: 16, lag: 128, ratio: 1, prefill: .oneShot)
    for policy in [DensePolicy(), all] as [any KVCachePolicy] {
      var cache = try model.makeCache(policy: policy)
      var rows = try model.prefill(tokens, into: &cache, workspace: &workspace).array()
      for token in tokens[..<5] {
        let hidden = try model.hiddenStates(of: [token], cache: &cache, workspace: &workspace)
        rows += try model.logits(of: hidden, rows: 0..<1, workspace: &workspace).array()
      }
      logits.append(rows)
    }
    #expect(logits[0] == logits[1])
  }

  /// 1,100 tokens in one masked step and in larger steps, against a window at a time through the cache.
  @Test func theChunkMaskIsWindowByWindow() throws {
    let model = try LlamaModel(path: TestFiles.modelPath, storage: .exact)
    let tokens = try novel(1100, model)
    let policy = try LagRelativeCompression(sink: 16, lag: 128, ratio: 0.25)
    var cache = try model.makeCache(policy: policy)
    var workspace = Workspace()
    var want: [Float] = []
    while cache.count < tokens.count {
      let count = min(cache.count == 0 ? 272 : 128, tokens.count - cache.count)
      let part = Array(tokens[cache.count..<cache.count + count])
      want += try model.hiddenStates(of: part, cache: &cache, workspace: &workspace).array()
    }
    for step in [512, 1100] {
      let (states, slots) = try LagModelTests.states(model, policy, tokens, step: step)
      let error = relativeError(states, want)
      print("SmolLM2: chunk mask against window by window, steps of \(step): relative error \(error)")
      #expect(error < 1e-5)
      #expect(slots.allSatisfy { $0 == policy.slots(afterReading: 1100) })
    }
  }
}
