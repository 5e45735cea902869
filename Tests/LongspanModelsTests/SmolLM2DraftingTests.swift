import Longspan
import LongspanKernels
import Testing

@testable import LongspanModels

/// Drafting on SmolLM2-135M-Instruct gives the greedy text, token for token.
@Suite(.serialized, .enabled(if: TestFiles.runsModelTests, Comment(rawValue: TestFiles.modelTestsComment)))
struct SmolLM2DraftingTests {
  private static let newTokens = 24

  private static func prompts(_ model: LlamaModel) throws -> [(kind: String, text: String, ids: [Int32])] {
    let template = try model.chatTemplate.get()
    let chats = DraftingPrompts.questions.map { question in
      let text = template.render([ChatMessage(role: "user", content: question)])
      return ("chat", question, model.tokenizer.encode(text, parsingSpecialTokens: true))
    }
    let kinds = [
      ("code", DraftingPrompts.code), ("list", DraftingPrompts.lists), ("prose", DraftingPrompts.prose),
    ]
    return chats + kinds.flatMap { kind, texts in texts.map { (kind, $0, model.promptTokens($0)) } }
  }

  /// A sequence that has read a prompt but for its last token, as several generators go on from there.
  private static func sequence(
    _ model: LlamaModel, _ ids: [Int32], _ method: DecodingMethod
  ) throws -> any ModelSequence {
    var options = SequenceOptions(capacity: ids.count + newTokens)
    options.prepare(for: method)
    let sequence = try model.makeSequence(options)
    var workspace = Workspace()
    _ = try sequence.readPrompt(Array(ids.dropLast()), workspace: &workspace)
    return sequence
  }

  private static func generate(
    _ model: LlamaModel, _ ids: [Int32], on sequence: any ModelSequence, _ method: DecodingMethod
  ) throws -> (tokens: [Int32], isFinished: Bool, statistics: DraftStatistics?) {
    try sequence.truncate(to: ids.count - 1)
    var drafter = method.makeDrafter()
    drafter?.append(Array(ids.dropLast()))
    var generator = try Generator(model, sequence: sequence, sampling: .greedy, seed: 0, drafter: drafter)
    generator.tokenLimit = newTokens
    try generator.read(Array(ids.suffix(1)))
    while generator.generated.count < newTokens, try generator.next() != nil {}
    // all but the token drawn last was read, or all if a stop token came after it
    #expect(sequence.count == ids.count + generator.generated.count - (generator.isFinished ? 0 : 1))
    return (generator.generated, generator.isFinished, generator.draftStatistics)
  }

  /// How much likelier the likeliest token after a text is than the next, in logits: a text that differs from another where
  /// this is about 0 differs by rounding.
  private static func gap(_ model: LlamaModel, after ids: [Int32]) throws -> Float {
    var workspace = Workspace()
    let logits = try model.makeSequence().readPrompt(ids, workspace: &workspace).array().sorted(by: >)
    return logits[0] - logits[1]
  }

  @Test func textsAreThoseOfGreedyDecoding() throws {
    let model = try LlamaModel(path: TestFiles.modelPath)
    let prompts = try Self.prompts(model)
    #expect(prompts.count == 50)
    let lookup = DecodingMethod.promptLookup(try PromptLookupDrafting())
    var accepted: [String: Int] = [:]
    for (index, prompt) in prompts.enumerated() {
      let ordinary = try Self.sequence(model, prompt.ids, .plain)
      let want = try Self.generate(model, prompt.ids, on: ordinary, .plain)
      let own = DecodingMethod.selfSpeculative(
        try SelfSpeculativeDrafting(cycle: 1 + index % 4, lateLayers: 8))
      for (method, sequence) in [(lookup, ordinary), (own, try Self.sequence(model, prompt.ids, own))] {
        let got = try Self.generate(model, prompt.ids, on: sequence, method)
        if got.tokens != want.tokens {
          let same = zip(got.tokens, want.tokens).prefix { $0 == $1 }.count
          let gap = try Self.gap(model, after: prompt.ids + want.tokens.prefix(same))
          Issue.record("\(method), '\(prompt.text)': token \(same) differs, where the gap is \(gap)")
        }
        #expect(got.isFinished == want.isFinished)
        let statistics = try #require(got.statistics)
        accepted[method == lookup ? prompt.kind : "selfspec", default: 0] += statistics.accepted
      }
    }
    // lists repeat themselves, which drafts from the text foretell
    #expect(accepted["list", default: 0] > DraftingPrompts.lists.count * Self.newTokens / 4)
    // the first token of each draft passed all layers; its late input has the embedding twice
    #expect(accepted["selfspec", default: 0] > prompts.count * Self.newTokens / 4)
  }
}
