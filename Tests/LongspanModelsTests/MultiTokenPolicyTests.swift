import Longspan
import LongspanKernels
import Testing

@testable import LongspanModels

/// Direct multi-token decoding with caches that give up slots, and with steps that fail.
@Suite struct MultiTokenPolicyTests {
  private let ids: [Int32]

  init() throws {
    // long enough for several windows
    let text = try MultiTokenFixtures.load().ids
    ids = (0..<90).map { text[($0 * $0 + 3 * $0) % text.count] }
  }

  /// Skips one layer of each group of every split.
  private func policies() throws -> [LagRelativeCompression] {
    var policies: [LagRelativeCompression] = []
    for mode in LagRelativeCompression.Mode.allCases {
      for positions in KVPositions.allCases {
        for prefill in LagRelativeCompression.Prefill.allCases
        where mode == .useThenCompress || prefill == .chunked {
          policies.append(
            try LagRelativeCompression(
              sink: 2, lag: 4, skippedLayers: [1, 2], mode: mode, prefill: prefill, positions: positions))
        }
      }
    }
    return policies
  }

  /// Each group's policy compresses its own layers by its own length, and in the layers before the late ones keeps what it
  /// keeps in ordinary decoding.
  @Test func groupsAreCompressedByThemselves() throws {
    let model = try MultiTokenFixtures.model()
    var workspace = Workspace()
    // cycles of 6 are longer than steps may be where a window is 4 tokens and positions are renumbered
    for decoding in try MultiTokenFixtures.schedules(cycles: [1, 6, 16]) {
      for policy in try policies() {
        let sequence = try model.sequence(decoding, policy: policy)
        #expect(sequence.policyName == policy.description)
        _ = try sequence.prompt(ids[..<25], chunk: 10, &workspace)
        _ = try sequence.logits(ids[25..<72], step: 1, model, &workspace)
        #expect(sequence.count == 72 && sequence.count - sequence.thinkingCount < decoding.cycle)
        for group in sequence.groups {
          let read = group.cache.count
          let ordinary = try #require(
            model.makeSequence(SequenceOptions(policy: policy)) as? LlamaSequence)
          _ = try ordinary.prompt(ids[..<min(25, read)], chunk: 10, &workspace)
          _ = try ordinary.logits(ids[min(25, read)..<read], step: 1, model, &workspace)
          for layer in group.layers {
            let cached = layer - group.layers.lowerBound
            let slots = policy.slots(afterReading: read, layer: layer)
            #expect(group.cache.slots(layer: cached) == slots, "\(decoding), \(policy), layer \(layer)")
            // where windows are compressed before attention, what a step sees depends on where it ends, in ordinary
            // decoding as well; and a prompt that is compressed at its end must have the same end
            guard group !== sequence.late, policy.mode == .useThenCompress,
              policy.prefill == .chunked || decoding.phase == .prompt
            else { continue }
            for head in 0..<group.cache.shape.heads {
              for slot in 0..<slots {
                let kept = try group.cache.position(layer: cached, head: head, slot: slot)
                let want = try ordinary.cache.position(layer: layer, head: head, slot: slot)
                #expect(kept == want, "\(decoding), \(policy), layer \(layer), slot \(slot)")
              }
            }
          }
        }
      }
    }
  }

  /// Tokens read one by one and several at once give the same, whatever the policy makes of the steps; but where windows are
  /// compressed before the attention of the step that completes them, which is so in ordinary decoding as well.
  @Test func stepsDoNotMatter() throws {
    let model = try MultiTokenFixtures.model()
    var workspace = Workspace()
    for decoding in try MultiTokenFixtures.schedules(cycles: [1, 3, 6]) {
      for policy in try policies() where policy.mode == .useThenCompress {
        var reference: [Float] = []
        for step in [1, 2, 7, 100] {
          let sequence = try model.sequence(decoding, policy: policy)
          var logits = try sequence.prompt(ids[..<20], &workspace)
          logits += try sequence.logits(ids[20..<51], step: step, model, &workspace)
          logits += try sequence.prompt(ids[51..<60], &workspace)
          logits += try sequence.logits(ids[60...], step: step, model, &workspace)
          if reference.isEmpty { reference = logits }
          let error = relativeError(logits, reference)
          #expect(error < 1e-4, "\(decoding), \(policy), steps of \(step): relative error \(error)")
        }
        let dense = try model.sequence(decoding)
        _ = try dense.prompt(ids[..<20], &workspace)
        let exact = try dense.logits(ids[20..<51], step: 100, model, &workspace)
        #expect(relativeError(exact, reference[model.vocabularySize...]) > 1e-3)
      }
    }
  }

  @Test func allKeptIsDenseBitForBit() throws {
    let model = try MultiTokenFixtures.model()
    var workspace = Workspace()
    let all = try LagRelativeCompression(sink: 2, lag: 4, ratio: 1)
    for decoding in try MultiTokenFixtures.schedules(cycles: [3]) {
      var results: [[Float]] = []
      for policy in [DensePolicy(), all] as [any KVCachePolicy] {
        let sequence = try model.sequence(decoding, policy: policy)
        results.append(
          try sequence.prompt(ids[..<20], &workspace)
            + sequence.logits(ids[20..<40], step: 1, model, &workspace))
      }
      #expect(results[0] == results[1])
    }
  }

  /// Calls have the model's layer as their tag in each group, those of compression too.
  @Test func profilesNameTheModelsLayers() throws {
    let model = try MultiTokenFixtures.model()
    var workspace = Workspace()
    let decoding = try MultiTokenDecoding(cycle: 2, lateLayers: 2, earlyLayers: 1)
    let sequence = try model.sequence(decoding, policy: LagRelativeCompression(sink: 2, lag: 4))
    _ = try sequence.prompt(ids[..<8], &workspace)
    // a head, and a token whose late and early layers complete a window
    for (token, layers) in [(8, [-1, 0, 1, 2, 3, 4, 5]), (9, [-1, 0, 3, 4, 5])] {
      let profile = try KernelProfile(of: model.context, capacity: 400)
      _ = try sequence.read([ids[token]], workspace: &workspace)
      let calls = profile.stop().calls
      #expect(Set(calls.map(\.tag)) == Set(layers))
      let scored = calls.filter { $0.kernel == .lagScores }.map(\.tag)
      #expect(Set(scored) == (token == 9 ? [0, 3, 4] : []))
    }
  }

  @Test func snapshotsGoBackBehindCompression() throws {
    let model = try MultiTokenFixtures.model()
    var workspace = Workspace()
    for policy in try policies() {
      let decoding = try MultiTokenDecoding(cycle: 4, lateLayers: 2, earlyLayers: 1)
      let sequence = try model.sequence(decoding, policy: policy)
      _ = try sequence.prompt(ids[..<9], &workspace)
      _ = try sequence.logits(ids[9..<11], step: 1, model, &workspace)
      let snapshot = try sequence.snapshot()
      let first = try sequence.logits(ids[11..<40], step: 1, model, &workspace)
      try sequence.restore(snapshot)
      #expect(try sequence.logits(ids[11..<40], step: 1, model, &workspace) == first)
    }
  }

  /// A policy that throws once, in a chosen layer of the model, when it is armed.
  private struct Failing: KVCachePolicy {
    enum Event { case append, attend }

    final class Trigger: @unchecked Sendable {
      var event: Event?
      var layer = 0

      func pull(_ event: Event, _ layers: Range<Int>) throws(LongspanError) {
        guard self.event == event, layers.contains(layer) else { return }
        self.event = nil
        throw LongspanError(.invalidArgument, "pulled at layer \(layer)")
      }
    }

    var base: any KVCachePolicy
    let trigger: Trigger
    var firstLayer = 0

    var description: String { "failing \(base)" }
    var positions: KVPositions { base.positions }
    func check(_ shape: KVShape) throws(LongspanError) { try base.check(shape) }
    func policy(forLayers layers: Range<Int>) -> any KVCachePolicy {
      Self(base: base.policy(forLayers: layers), trigger: trigger, firstLayer: layers.lowerBound)
    }
    func stepLength(limit: Int, in cache: borrowing KVCache) -> Int {
      base.stepLength(limit: limit, in: cache)
    }
    func slots(afterReading tokens: Int, layer: Int) -> Int { base.slots(afterReading: tokens, layer: layer) }
    mutating func didAppend(
      layer: Int, to cache: inout KVCache, on context: KernelContext, workspace: inout Workspace
    ) throws(LongspanError) -> KVVisibility {
      let visibility = try base.didAppend(layer: layer, to: &cache, on: context, workspace: &workspace)
      try trigger.pull(.append, firstLayer + layer..<firstLayer + layer + 1)
      return visibility
    }
    mutating func didAttend(
      in cache: inout KVCache, on context: KernelContext, workspace: inout Workspace
    ) throws(LongspanError) {
      try trigger.pull(.attend, firstLayer..<firstLayer + cache.shape.layers)
      try base.didAttend(in: &cache, on: context, workspace: &workspace)
    }
    mutating func didEndPrefill(
      in cache: inout KVCache, on context: KernelContext, workspace: inout Workspace
    ) throws(LongspanError) {
      try base.didEndPrefill(in: &cache, on: context, workspace: &workspace)
    }
    mutating func reset() { base.reset() }
  }

  /// Wherever a step fails, in a layer or when a group's cache takes it in, every group is where it was.
  @Test func aFailedStepLeavesEveryGroup() throws {
    let model = try MultiTokenFixtures.model()
    var workspace = Workspace()
    for decoding in try MultiTokenFixtures.schedules(cycles: [3]) {
      let plain = try model.sequence(decoding)
      var want = try plain.prompt(ids[..<6], &workspace)
      want += try plain.logits(ids[6..<18], step: 1, model, &workspace)
      for event in [Failing.Event.append, .attend] {
        for layer in 0..<5 {
          let trigger = Failing.Trigger()
          let sequence = try model.sequence(
            decoding, policy: Failing(base: DensePolicy(), trigger: trigger))
          var logits = try sequence.prompt(ids[..<6], &workspace)
          for token in ids[6..<18] {
            let before = sequence.groups.map { $0.cache.count }
            let bytes = sequence.byteCount
            (trigger.event, trigger.layer) = (event, layer)
            do {
              logits += try sequence.logits([token], step: 1, model, &workspace)
              // the thinking layers have nothing to do but at heads
              #expect(sequence.layerGroups.thinking.contains(layer))
              trigger.event = nil
            } catch {
              #expect(sequence.groups.map { $0.cache.count } == before && sequence.byteCount == bytes)
              logits += try sequence.logits([token], step: 1, model, &workspace)
            }
          }
          #expect(logits == want, "\(decoding), \(event) of layer \(layer)")
        }
      }
    }
  }

  /// Where a cache was compressed in the step that failed elsewhere, the sequence says so until it is restored.
  @Test func aStepThatCannotBeTakenBackIsSaid() throws {
    let model = try MultiTokenFixtures.model()
    var workspace = Workspace()
    let decoding = try MultiTokenDecoding(cycle: 1, lateLayers: 2)
    let trigger = Failing.Trigger()
    let policy = Failing(base: try LagRelativeCompression(sink: 2, lag: 4), trigger: trigger)
    let sequence = try model.sequence(decoding, policy: policy)
    // the tenth token completes the second window
    _ = try sequence.prompt(ids[..<9], &workspace)
    let snapshot = try sequence.snapshot()
    (trigger.event, trigger.layer) = (.attend, 0)
    #expect(throws: LongspanError.self) { _ = try sequence.read([ids[9]], workspace: &workspace) }
    let error = #expect(throws: LongspanError.self) {
      _ = try sequence.read([ids[9]], workspace: &workspace)
    }
    #expect(error?.message.contains("lost tokens") == true)
    #expect(throws: LongspanError.self) { _ = try sequence.snapshot() }
    try sequence.restore(snapshot)
    let plain = try model.sequence(decoding, policy: LagRelativeCompression(sink: 2, lag: 4))
    _ = try plain.prompt(ids[..<9], &workspace)
    let want = try plain.logits(ids[9..<20], step: 1, model, &workspace)
    #expect(try sequence.logits(ids[9..<20], step: 1, model, &workspace) == want)
  }

  /// What a policy chose in a step that failed is not what it keeps after another one.
  @Test func aFailedStepLeavesThePolicy() throws {
    let model = try MultiTokenFixtures.model()
    var workspace = Workspace()
    let trigger = Failing.Trigger()
    let lag = try LagRelativeCompression(sink: 2, lag: 4)
    var caches: [[Int]] = []
    for policy in [lag, Failing(base: lag, trigger: trigger)] as [any KVCachePolicy] {
      var cache = try model.makeCache(policy: policy)
      _ = try model.hiddenStates(of: Array(ids[..<6]), cache: &cache, workspace: &workspace)
      if policy is Failing {
        (trigger.event, trigger.layer) = (.append, 4)
        // other tokens: slots of several windows would be chosen in all layers before the last
        #expect(throws: LongspanError.self) {
          _ = try model.hiddenStates(of: Array(ids[50..<64]), cache: &cache, workspace: &workspace)
        }
      }
      _ = try model.hiddenStates(of: Array(ids[6..<10]), cache: &cache, workspace: &workspace)
      var kept: [Int] = []
      for layer in 0..<5 {
        for slot in 0..<cache.slots(layer: layer) {
          kept.append(try cache.position(layer: layer, head: 0, slot: slot))
        }
      }
      caches.append(kept)
    }
    #expect(caches[0] == caches[1])
  }
}
