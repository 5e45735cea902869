import Longspan
import LongspanKernels
import Testing

@testable import LongspanModels

/// Self-speculative drafting on the random model of five layers that multi-token decoding is tested on.
@Suite struct SelfSpeculativeTests {
  private let ids: [Int32]

  init() throws { ids = try MultiTokenFixtures.load().ids }

  private static func model() throws -> LlamaModel {
    try LlamaModel(path: MultiTokenFixtures.file, storage: .f32, context: KernelContext(threads: 1))
  }

  /// Splits of five layers into early, thinking and late ones: (early, late).
  private static let splits = [(0, 1), (0, 4), (1, 2), (2, 2), (3, 1)]

  private static func likeliest(_ logits: [Float]) -> Int32 {
    Int32(logits.indices.max { logits[$0] < logits[$1] } ?? 0)
  }

  private static func sequence(
    _ model: LlamaModel, cycle: Int = 4, early: Int = 0, late: Int = 2
  ) throws -> LlamaSelfSpeculativeSequence {
    let drafting = try SelfSpeculativeDrafting(cycle: cycle, lateLayers: late, earlyLayers: early)
    return try #require(
      model.makeSequence(SequenceOptions(drafting: drafting)) as? LlamaSelfSpeculativeSequence)
  }

  /// A draft is what a cycle of multi-token decoding gives, when it starts at the same token.
  @Test(arguments: [1, 2, 5]) func draftsAreCyclesOfMultiTokenDecoding(cycle: Int) throws {
    let model = try Self.model()
    var workspace = Workspace()
    var drafts: Set<[Int32]> = []
    for (early, late) in Self.splits {
      let drafting = try Self.sequence(model, cycle: cycle, early: early, late: late)
      for length in [1, 2, 9] {
        let decoding = try MultiTokenDecoding(cycle: cycle, lateLayers: late, earlyLayers: early)
        let scheduled = try model.sequence(decoding)
        var token = Self.likeliest(try scheduled.prompt(ids[..<length], &workspace))
        let head = token
        var want: [Int32] = []
        for _ in 0..<cycle {
          token = Self.likeliest(try scheduled.logits([token], step: 1, model, &workspace))
          want.append(token)
        }
        drafting.begin(expecting: nil)
        #expect(Self.likeliest(try drafting.prompt(ids[..<length], &workspace)) == head)
        #expect(try drafting.draft(after: head, limit: .max, workspace: &workspace) == want)
        #expect(try drafting.draft(after: head, limit: 1, workspace: &workspace) == Array(want.prefix(1)))
        #expect(try drafting.draft(after: head, limit: 0, workspace: &workspace).isEmpty)
        #expect(drafting.count == length)
        drafts.insert(want)
      }
    }
    #expect(drafts.count > 3)
  }

  @Test(arguments: [1, 2, 4, 9], DraftingTests.samplings)
  func textIsThatOfOrdinaryDecoding(cycle: Int, sampling: SamplingOptions) throws {
    let model = try Self.model()
    let turns = [Array(ids[..<6]), [ids[7]], Array(ids[3..<12])]
    let plain = try DraftingTests.generate(model, sampling, seed: 10, nil, count: 21, turns: turns)
    #expect(plain.tokens.count == 63)
    var accepted = 0
    for (early, late) in Self.splits {
      let drafting = try SelfSpeculativeDrafting(cycle: cycle, lateLayers: late, earlyLayers: early)
      let drafted = try DraftingTests.generate(
        model, sampling, seed: 10, SelfSpeculativeDrafter(), count: 21, turns: turns,
        options: SequenceOptions(drafting: drafting))
      #expect(drafted == plain, "\(drafting)")
      let statistics = try #require(drafted.statistics)
      #expect(statistics.drafted > 0 && statistics.draftedByPosition.count == cycle)
      #expect(statistics.passes + statistics.accepted == statistics.tokens)
      accepted += statistics.accepted
    }
    #expect(accepted > 0)
  }

  /// Whether a draft was made before, and of what, does not change what is read, bit for bit.
  @Test func draftsLeaveNoTrace() throws {
    let model = try Self.model()
    var workspace = Workspace()
    for (early, late) in Self.splits {
      let drafting = try Self.sequence(model, early: early, late: late)
      let plain = try model.makeSequence()
      #expect(
        try drafting.prompt(ids[..<7], chunk: 3, &workspace)
          == plain.prompt(ids[..<7], chunk: 3, &workspace))
      for (index, token) in ids[7..<14].enumerated() {
        // of the token that comes, of another, of both, of none
        if index % 4 != 3 {
          _ = try drafting.draft(after: index % 2 == 0 ? token : 1, limit: 9, workspace: &workspace)
        }
        if index % 4 == 2 { _ = try drafting.draft(after: 2, limit: 2, workspace: &workspace) }
        #expect(drafting.count == 7 + index)
        #expect(
          try drafting.logits([token], step: 1, model, &workspace)
            == plain.logits([token], step: 1, model, &workspace))
      }
      _ = try drafting.draft(after: 3, limit: 9, workspace: &workspace)
      try drafting.truncate(to: 9)
      try plain.truncate(to: 9)
      #expect(drafting.byteCount == plain.byteCount && drafting.slots == 9)
      #expect(
        try drafting.logits(ids[4..<5], step: 1, model, &workspace)
          == plain.logits(ids[4..<5], step: 1, model, &workspace))
      // several rows, of which the first was computed alone for the draft
      _ = try drafting.draft(after: 5, limit: 9, workspace: &workspace)
      let error = relativeError(
        try drafting.logits([5, 6, 7], step: 3, model, &workspace),
        try plain.logits([5, 6, 7], step: 3, model, &workspace))
      #expect(error < 1e-5)
      drafting.begin(expecting: nil)
      #expect(drafting.count == 0 && drafting.byteCount == 0)
    }
  }

  /// A prefix is kept while a draft is being checked, and restored over another text and its draft.
  @Test func snapshotsGoBack() throws {
    let model = try Self.model()
    var workspace = Workspace()
    for (early, late) in Self.splits {
      let sequence = try Self.sequence(model, early: early, late: late)
      _ = try sequence.prompt(ids[..<6], &workspace)
      _ = try sequence.draft(after: 3, limit: 4, workspace: &workspace)
      let snapshot = try sequence.snapshot()
      #expect(snapshot.count == 6)
      let want = try sequence.logits(ids[8..<10], step: 1, model, &workspace)
      let draft = try sequence.draft(after: 4, limit: 4, workspace: &workspace)
      for other in [sequence, try Self.sequence(model, early: early, late: late)] {
        _ = try other.prompt(ids[2..<4], &workspace)
        _ = try other.draft(after: 1, limit: 4, workspace: &workspace)
        try other.restore(snapshot)
        #expect(other.count == 6)
        #expect(try other.logits(ids[8..<10], step: 1, model, &workspace) == want)
        #expect(try other.draft(after: 4, limit: 4, workspace: &workspace) == draft)
      }
      let other = try Self.sequence(model, cycle: 3, early: early, late: late)
      let error = #expect(throws: LongspanError.self) { try other.restore(snapshot) }
      #expect(error?.message.contains("selfspec:cycle=3") == true)
    }
  }

  @Test func failuresChangeNothing() throws {
    let model = try Self.model()
    var workspace = Workspace()
    let sequence = try Self.sequence(model, early: 1)
    let want = try Self.sequence(model, early: 1)
    _ = try sequence.prompt(ids[..<5], &workspace)
    _ = try want.prompt(ids[..<5], &workspace)
    let beyond = Int32(model.vocabularySize)
    _ = try sequence.draft(after: 3, limit: 4, workspace: &workspace)
    for tokens in [[beyond], [3, beyond], [], [4, 5, -1]] as [[Int32]] {
      #expect(throws: LongspanError.self) { _ = try sequence.read(tokens, workspace: &workspace) }
      #expect(throws: LongspanError.self) {
        _ = try sequence.draft(after: beyond, limit: 4, workspace: &workspace)
      }
      #expect(sequence.count == 5)
    }
    for count in [-1, 6] {
      #expect(throws: LongspanError.self) { try sequence.truncate(to: count) }
    }
    #expect(throws: LongspanError.self) { try sequence.requireMemory(forReading: .max) }
    #expect(throws: LongspanError.self) { _ = try sequence.prompt([1], chunk: 0, &workspace) }
    #expect(throws: LongspanError.self) { _ = try sequence.prompt([], &workspace) }
    #expect(
      try sequence.logits([8], step: 1, model, &workspace) == want.logits([8], step: 1, model, &workspace))
  }

  @Test func whatDoesNotGoTogetherIsRefusedByName() throws {
    let model = try Self.model()
    let drafting = try SelfSpeculativeDrafting(cycle: 2, lateLayers: 2)
    let decoding = try MultiTokenDecoding(cycle: 2, lateLayers: 2)
    func message(_ options: SequenceOptions, _ model: any LanguageModel) -> String {
      let error = #expect(throws: LongspanError.self) { _ = try model.makeSequence(options) }
      return error?.message ?? ""
    }
    let lag = try LagRelativeCompression(lag: 8)
    #expect(message(SequenceOptions(policy: lag, drafting: drafting), model).contains("lagkv:"))
    let both = message(SequenceOptions(decoding: decoding, drafting: drafting), model)
    #expect(both.contains("dmtd:") && both.contains("selfspec:"))
    let all = try SelfSpeculativeDrafting(cycle: 2, lateLayers: 5)
    #expect(message(SequenceOptions(drafting: all), model).contains("late 5"))
    let mamba = try MambaFixtures.load("mamba")
    #expect(message(SequenceOptions(drafting: drafting), mamba).contains("mamba"))
    for drafter in [PromptLookupDrafter(try PromptLookupDrafting()), SelfSpeculativeDrafter()]
      as [any Drafter]
    {
      let sequence = try model.sequence(decoding)
      let error = #expect(throws: LongspanError.self) {
        _ = try Generator(model, sequence: sequence, sampling: .greedy, seed: 0, drafter: drafter)
      }
      #expect(error?.code == .unsupported && error?.message.contains("dmtd:cycle=2") == true)
    }
  }
}
