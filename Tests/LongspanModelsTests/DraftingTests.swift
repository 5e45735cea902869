import Longspan
import LongspanKernels
import Testing

@testable import LongspanModels

/// Drafting and verifying on tiny random models: the text, the sampler and the sequence are those of ordinary decoding.
@Suite struct DraftingTests {
  static let samplings = [
    SamplingOptions.greedy, SamplingOptions(temperature: 1), SamplingOptions(temperature: 6, topK: 20),
  ]
  static let prompt: [Int32] = [40, 41, 42, 43, 40, 41, 42, 60, 61, 40, 41]

  static func model(_ name: String = "tied") throws -> LlamaModel {
    // thousands of passes over tiny products, which threads would only slow down
    try LlamaModel(path: TestFiles.fixture("tiny/\(name).gguf").path, context: KernelContext(threads: 1))
  }

  /// What a generator gives, token by token.
  struct Text: Equatable {
    var tokens: [Int32] = []
    var pieces: [String] = []
    var isFinished = false
    var sequenceCount = 0
    var statistics: DraftStatistics?

    static func == (a: Text, b: Text) -> Bool {
      a.tokens == b.tokens && a.pieces == b.pieces && a.isFinished == b.isFinished
        && a.sequenceCount == b.sequenceCount
    }
  }

  /// Several turns: reads each prompt and generates at most `count` tokens after it.
  static func generate(
    _ model: LlamaModel, _ sampling: SamplingOptions, seed: UInt64, _ drafter: (any Drafter)?, count: Int,
    turns: [[Int32]] = [prompt], ignoringEnd: Bool = true, options: SequenceOptions = SequenceOptions()
  ) throws -> Text {
    var generator = try Generator(
      model, sequence: model.makeSequence(options), sampling: sampling, seed: seed, drafter: drafter,
      ignoringEnd: ignoringEnd)
    var text = Text()
    for turn in turns {
      try generator.read(turn, chunk: 4)
      generator.tokenLimit = generator.generated.count + count
      for _ in 0..<count {
        guard let piece = try generator.next() else { break }
        text.pieces.append(piece)
      }
    }
    text.tokens = generator.generated
    text.isFinished = generator.isFinished
    text.sequenceCount = generator.sequence.count
    text.statistics = generator.draftStatistics
    return text
  }

  @Test(arguments: ["tied", "untied"], [1, 2, 3, 8, 40])
  func textIsThatOfOrdinaryDecoding(name: String, length: Int) throws {
    let model = try Self.model(name)
    var accepted = 0
    for sampling in Self.samplings {
      let plain = try Self.generate(model, sampling, seed: 5, nil, count: 50)
      #expect(plain.tokens.count == 50 && plain.statistics == nil)
      let drafters: [any Drafter] = [
        ScriptedDrafter(script: plain.tokens, length: length),
        ScriptedDrafter(script: plain.tokens, length: length, mistakeEvery: 1),
        ScriptedDrafter(script: plain.tokens, length: length, mistakeEvery: 3),
        PromptLookupDrafter(try PromptLookupDrafting(ngram: 3, least: 1, draft: length)),
        PromptLookupDrafter(try PromptLookupDrafting(ngram: 2, least: 2, draft: length)),
      ]
      for drafter in drafters {
        let drafted = try Self.generate(model, sampling, seed: 5, drafter, count: 50)
        #expect(drafted == plain, "\(drafter)")
        accepted += (drafter as? PromptLookupDrafter).map { _ in drafted.statistics?.accepted ?? 0 } ?? 0
      }
    }
    // the other model does not repeat itself
    #expect(accepted > 0 || name == "untied")
  }

  /// Stop tokens at any place of an accepted draft, also as drafted tokens.
  @Test(arguments: [0, 4]) func stopTokensEndTheTextAtOnce(mistakeEvery: Int) throws {
    let model = try Self.model()
    let sampling = SamplingOptions(temperature: 30)
    var lengths: Set<Int> = []
    for seed in 0..<UInt64(60) {
      let plain = try Self.generate(model, sampling, seed: seed, nil, count: 30, ignoringEnd: false)
      // what ordinary decoding would have gone on with, the stop token first
      let script = try Self.generate(model, sampling, seed: seed, nil, count: 40).tokens
      #expect(script.starts(with: plain.tokens))
      let drafter = ScriptedDrafter(script: script, length: 7, mistakeEvery: mistakeEvery)
      let drafted = try Self.generate(
        model, sampling, seed: seed, drafter, count: 30, ignoringEnd: false)
      #expect(drafted == plain, "seed \(seed)")
      if plain.isFinished { lengths.insert(plain.tokens.count % 8) }
      // and the turn after it goes on from the same text and the same state of the sampler
      let turns = [Self.prompt, [7, 8, 9]]
      #expect(
        try Self.generate(model, sampling, seed: seed, drafter, count: 12, turns: turns, ignoringEnd: false)
          == Self.generate(model, sampling, seed: seed, nil, count: 12, turns: turns, ignoringEnd: false))
    }
    #expect(lengths.count >= 4, "stop tokens at \(lengths)")
  }

  /// A caller may stop at any token, without a limit given, and read on.
  @Test(arguments: 1...10) func readingOnTakesBackWhatWasNotReturned(count: Int) throws {
    let model = try Self.model()
    let sampling = SamplingOptions(temperature: 6)
    let script = try Self.generate(model, sampling, seed: 3, nil, count: 40).tokens
    func run(_ drafter: (any Drafter)?, second: [Int32]) throws -> [Int32] {
      var generator = try Generator(
        model, sequence: model.makeSequence(), sampling: sampling, seed: 3, drafter: drafter,
        ignoringEnd: true)
      try generator.read(Self.prompt)
      for _ in 0..<count { _ = try generator.next() }
      try generator.read(second)
      #expect(generator.sequence.count == Self.prompt.count + count + second.count)
      for _ in 0..<10 { _ = try generator.next() }
      return generator.generated
    }
    for second in [[7, 8, 9], [5], []] as [[Int32]] {
      let plain = try run(nil, second: second)
      for mistakes in [0, 2, 5] {
        let drafted = try run(
          ScriptedDrafter(script: script, length: 6, mistakeEvery: mistakes), second: second)
        #expect(drafted == plain)
      }
    }
  }

  /// With a limit the model never reads beyond the last token but one, as without drafts.
  @Test(arguments: 1...9) func limitsBoundTheDrafts(limit: Int) throws {
    let model = try Self.model()
    let script = try Self.generate(model, .greedy, seed: 0, nil, count: 30).tokens
    let plain = try Self.generate(model, .greedy, seed: 0, nil, count: limit)
    #expect(plain.sequenceCount == Self.prompt.count + limit - 1)
    let drafted = try Self.generate(
      model, .greedy, seed: 0, ScriptedDrafter(script: script, length: 5), count: limit)
    #expect(drafted == plain)
  }

  @Test func turnsFollowEachOther() throws {
    let model = try Self.model("untied")
    let turns: [[Int32]] = [Self.prompt, [9], [1, 2, 3, 4, 5, 6, 7, 8, 9], Self.prompt]
    for sampling in Self.samplings {
      let plain = try Self.generate(model, sampling, seed: 1, nil, count: 9, turns: turns)
      let lookup = PromptLookupDrafter(try PromptLookupDrafting(ngram: 3, least: 1, draft: 4))
      let drafted = try Self.generate(model, sampling, seed: 1, lookup, count: 9, turns: turns)
      #expect(drafted == plain)
      #expect(try #require(drafted.statistics).drafted > 0)
    }
  }

  @Test func statisticsAddUp() throws {
    let model = try Self.model()
    let script = try Self.generate(model, .greedy, seed: 0, nil, count: 60).tokens
    func statistics(_ drafter: any Drafter, count: Int) throws -> DraftStatistics {
      try #require(try Self.generate(model, .greedy, seed: 0, drafter, count: count).statistics)
    }
    // the prompt's token, and 8 passes over 5 drafted tokens and one that comes free
    let perfect = try statistics(ScriptedDrafter(script: script, length: 5), count: 49)
    #expect(perfect.passes == 8 && perfect.tokens == 48)
    #expect(perfect.draftedByPosition == [8, 8, 8, 8, 8])
    #expect(perfect.acceptedByPosition == perfect.draftedByPosition)
    #expect(perfect.meanAccepted == 5 && perfect.tokensPerPass == 6 && perfect.acceptanceRate == 1)
    // the third of each draft is wrong, and the limit cuts it from the last
    let third = try statistics(ScriptedDrafter(script: script, length: 3, mistakeEvery: 3), count: 31)
    #expect(third.passes == 10 && third.tokens == 30)
    #expect(third.draftedByPosition == [10, 10, 9] && third.acceptedByPosition == [10, 10, 0])
    #expect(third.drafted == 29 && third.accepted == 20 && third.meanAccepted == 2)
    // all are wrong
    let wrong = try statistics(ScriptedDrafter(script: script, length: 4, mistakeEvery: 1), count: 11)
    #expect(wrong.passes == 10 && wrong.tokens == 10 && wrong.accepted == 0 && wrong.tokensPerPass == 1)
    // the limit cuts the last drafts: 4, 4, 4, 3, 2, 1, 0
    #expect(wrong.draftedByPosition == [9, 8, 7, 6])
    for count in [1, 2, 20, 59] {
      let lookup = PromptLookupDrafter(try PromptLookupDrafting(ngram: 3, least: 1, draft: 4))
      let s = try statistics(lookup, count: count)
      #expect(s.tokens == count - 1 && s.passes + s.accepted == s.tokens && s.accepted <= s.drafted)
      #expect(zip(s.acceptedByPosition, s.draftedByPosition).allSatisfy { $0 <= $1 })
      #expect(s.acceptedByPosition == s.acceptedByPosition.sorted(by: >))
      #expect(s.draftedByPosition == s.draftedByPosition.sorted(by: >))
    }
    let none = DraftStatistics()
    #expect(none.meanAccepted == 0 && none.tokensPerPass == 0 && none.acceptanceRate == 0)
  }

  /// A draft that fails, or that the model cannot read, leaves the text as it was.
  @Test func failuresChangeNothing() throws {
    let model = try Self.model()
    let plain = try Self.generate(model, SamplingOptions(temperature: 6), seed: 2, nil, count: 20)
    for script in [plain.tokens, plain.tokens.map { $0 + 1000 }] {
      var generator = try Generator(
        model, sequence: model.makeSequence(), sampling: SamplingOptions(temperature: 6), seed: 2,
        drafter: ScriptedDrafter(script: script, length: 3, failingCall: 3), ignoringEnd: true)
      try generator.read(Self.prompt)
      var failures = 0
      while generator.generated.count < 20 {
        let count = generator.sequence.count
        do {
          _ = try generator.next()
        } catch {
          failures += 1
          #expect(generator.sequence.count == count)
          // tokens outside the vocabulary are refused each time
          if script != plain.tokens { break }
        }
      }
      #expect(failures == 1)
      #expect(plain.tokens.starts(with: generator.generated))
      #expect(generator.generated.count == (script == plain.tokens ? 20 : 1))
    }
  }

  @Test func compressedCachesAndStatesAreRefusedByName() throws {
    let lookup = PromptLookupDrafter(try PromptLookupDrafting())
    let model = try Self.model()
    let lag = try model.makeSequence(SequenceOptions(policy: LagRelativeCompression(lag: 8)))
    let refused = #expect(throws: LongspanError.self) {
      _ = try Generator(model, sequence: lag, sampling: .greedy, seed: 0, drafter: lookup)
    }
    #expect(refused?.code == .unsupported && refused?.message.contains("lagkv:sink=16,lag=8") == true)
    for name in ["mamba", "mamba2"] {
      let mamba = try MambaFixtures.load(name)
      let sequence = try mamba.makeSequence()
      let refused = #expect(throws: LongspanError.self) {
        _ = try Generator(mamba, sequence: sequence, sampling: .greedy, seed: 0, drafter: lookup)
      }
      #expect(refused?.code == .unsupported && refused?.message.contains("state of \(name) ") == true)
      #expect(throws: LongspanError.self) { try sequence.truncate(to: 0) }
    }
    let sequence = try model.makeSequence()
    let unable = #expect(throws: LongspanError.self) {
      _ = try Generator(
        model, sequence: sequence, sampling: .greedy, seed: 0, drafter: SelfSpeculativeDrafter())
    }
    #expect(unable?.code == .unsupported && unable?.message.contains("self-speculative") == true)
  }

  @Test func truncationForgets() throws {
    let model = try Self.model()
    let sequence = try model.makeSequence()
    var workspace = Workspace()
    let want = try sequence.readPrompt(Self.prompt, workspace: &workspace).array()
    _ = try sequence.read([1, 2, 3], workspace: &workspace)
    try sequence.truncate(to: Self.prompt.count - 1)
    #expect(sequence.count == Self.prompt.count - 1)
    let again = try sequence.readPrompt([Self.prompt[Self.prompt.count - 1]], workspace: &workspace).array()
    #expect(relativeError(again, want) < 1e-5)
    for tokens in [-1, Self.prompt.count + 1] {
      let error = #expect(throws: LongspanError.self) { try sequence.truncate(to: tokens) }
      #expect(error?.code == .badIndex)
    }
    #expect(sequence.count == Self.prompt.count)
  }
}
