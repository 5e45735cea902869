import Longspan
import LongspanKernels
import Testing

@testable import LongspanModels

/// Cached, cyclically refilled decoding against the training formula over the whole text at once.
@Suite(.serialized) struct MultiTokenOracleTests {
  private let fixtures: MultiTokenFixtures
  private let floats: OracleFloats

  init() throws {
    fixtures = try .load()
    floats = try OracleFloats("dmtd/dmtd.f32")
  }

  private static let variants = KernelContext.variants.filter(\.isSupported).map(\.name)

  /// Compares logits of consecutive positions with the oracle's, each position by itself.
  private func compare(
    _ logits: [Float], at first: Int, _ oracle: MultiTokenFixtures.Case, _ model: LlamaModel, _ how: String
  ) {
    let expected = Array(floats[oracle.logits])
    let width = expected.count / oracle.tokens
    let vocabulary = model.vocabularySize
    for row in 0..<logits.count / vocabulary {
      let sampled = stride(from: 0, to: vocabulary, by: fixtures.stride).map { logits[row * vocabulary + $0] }
      #expect(sampled.count == width)
      let place = (first + row) * width
      let error = relativeError(sampled, expected[place..<place + width])
      #expect(
        error < 1e-4, "\(oracle.testDescription), position \(first + row), \(how): relative error \(error)")
    }
  }

  /// In the absolute phase a case holds for prompts of any length.
  private func turns(_ oracle: MultiTokenFixtures.Case) -> [[[Int]]] {
    guard oracle.phase == "absolute" else { return [oracle.turns] }
    let lengths = Set([1, oracle.cycle - 1, oracle.cycle, oracle.cycle + 1]).filter { $0 > 0 }
    return [oracle.turns] + lengths.sorted().map { [[$0, oracle.tokens - $0]] }
  }

  @Test(arguments: variants) func everyPositionHasTheFormulasLogits(isa: String) throws {
    let model = try MultiTokenFixtures.model(isa: isa)
    var workspace = Workspace()
    for oracle in fixtures.cases {
      let decoding = try oracle.decoding()
      for turns in turns(oracle) {
        // generated tokens one by one; several at once, within and across cycles; whole turns
        for (step, chunk) in [(1, 512), (2, 2), (5, 1), (512, 3)] {
          let sequence = try model.sequence(decoding)
          var position = 0
          for turn in turns {
            let prompt = fixtures.ids[position..<position + turn[0]]
            let last = try sequence.prompt(prompt, chunk: chunk, &workspace)
            position += turn[0]
            compare(last, at: position - 1, oracle, model, "prompt in chunks of \(chunk)")
            let text = fixtures.ids[position..<position + turn[1]]
            let logits = try sequence.logits(text, step: step, model, &workspace)
            compare(logits, at: position, oracle, model, "steps of \(step)")
            position += turn[1]
            #expect(sequence.count == position)
          }
        }
      }
    }
  }

  /// The logits of a prompt's tokens but the last, which only the inside of the sequence shows.
  @Test func everyPositionOfAPromptHasTheFormulasLogits() throws {
    let model = try MultiTokenFixtures.model()
    var workspace = Workspace()
    for oracle in fixtures.cases {
      let sequence = try model.sequence(oracle.decoding())
      var position = 0
      for turn in oracle.turns {
        let prompt = Array(fixtures.ids[position..<position + turn[0]])
        let hidden = try sequence.step(prompt, isOrdinary: oracle.phase == "prompt", &workspace)
        let logits = try model.logits(of: hidden, rows: 0..<prompt.count, workspace: &workspace).array()
        compare(logits, at: position, oracle, model, "prompt")
        position += turn[0]
        _ = try sequence.logits(
          fixtures.ids[position..<position + turn[1]], step: 1, model, &workspace)
        position += turn[1]
      }
    }
  }

  /// What the cases are there to tell apart: the logits differ between them where they should.
  @Test func thePhaseAndTheHeadsMatter() throws {
    func logits(_ cycle: Int, _ early: Int, _ phase: String, _ turns: [[Int]]) throws -> ArraySlice<Float> {
      let oracle = try #require(
        fixtures.cases.first {
          $0.cycle == cycle && $0.early == early && $0.phase == phase && $0.turns == turns
        })
      return floats[oracle.logits]
    }
    let turns = [[5, 3], [2, 1], [4, 8]]
    for early in [0, 2] {
      let anchored = try logits(4, early, "prompt", turns)
      #expect(relativeError(try logits(4, early, "absolute", turns), anchored) > 1e-2)
      #expect(relativeError(try logits(3, early, "prompt", turns), anchored) > 1e-2)
    }
  }
}
