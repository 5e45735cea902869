import Foundation
import Longspan
import LongspanKernels
import Testing

@testable import LongspanModels

/// Logits of SmolLM2-135M-Instruct on five prompts, from Hugging Face transformers in float32 eager.
@Suite(.serialized, .enabled(if: TestFiles.runsModelTests, Comment(rawValue: TestFiles.modelTestsComment)))
struct SmolLM2Tests {
  struct Prompts: Decodable {
    struct Prompt: Decodable {
      let name: String
      let ids: [Int32]
    }
    let prompts: [Prompt]
  }

  struct Oracle: Decodable {
    struct Greedy: Decodable {
      let ids: [Int32]
      let gaps: [Float]
    }
    struct Case: Decodable {
      let name: String
      let lastLogits: OracleFloats.Slice
      let sampledLogits: OracleFloats.Slice
      let meanNll: Double?
      let greedy: Greedy?
    }
    /// Every how-manieth logit of each position is in `sampledLogits`.
    let sampledEvery: Int
    let cases: [Case]
  }

  @Test func logitsMatchTransformers() throws {
    let prompts = try TestFiles.json(Prompts.self, "tokenizer/prompts.json").prompts
    let oracle = try TestFiles.json(Oracle.self, "smollm2/smollm2.json")
    let floats = try OracleFloats("smollm2/smollm2.f32")
    let model = try LlamaModel(path: TestFiles.modelPath, storage: .exact)
    #expect(oracle.cases.count == 5)
    for expected in oracle.cases {
      let prompt = try #require(prompts.first { $0.name == expected.name })
      var cache = try model.makeCache()
      var workspace = Workspace()
      let logits = try model.prefill(prompt.ids, into: &cache, chunk: 100, workspace: &workspace)
      let error = relativeError(logits.array(), floats[expected.lastLogits])
      #expect(error < 2e-3, "\(expected.name): relative error \(error)")
      print("SmolLM2 \(expected.name): relative error of the last logits \(error)")
    }
  }

  @Test func logitsOfEveryPositionMatchTransformers() throws {
    let prompts = try TestFiles.json(Prompts.self, "tokenizer/prompts.json").prompts
    let oracle = try TestFiles.json(Oracle.self, "smollm2/smollm2.json")
    let floats = try OracleFloats("smollm2/smollm2.f32")
    let model = try LlamaModel(path: TestFiles.modelPath, storage: .exact)
    for expected in oracle.cases {
      let prompt = try #require(prompts.first { $0.name == expected.name })
      var cache = try model.makeCache()
      var workspace = Workspace()
      let hidden = try model.hiddenStates(of: prompt.ids, cache: &cache, workspace: &workspace)
      let logits = try model.logits(of: hidden, rows: 0..<prompt.ids.count, workspace: &workspace).array()
      // the vocabulary is a multiple of the step, so steps run on from row to row
      let sampled = stride(from: 0, to: logits.count, by: oracle.sampledEvery).map { logits[$0] }
      #expect(sampled.count == expected.sampledLogits.count)
      let error = relativeError(sampled, floats[expected.sampledLogits])
      #expect(error < 2e-3, "\(expected.name): relative error \(error)")
    }
  }

  @Test func greedyTextMatchesTransformers() throws {
    let prompts = try TestFiles.json(Prompts.self, "tokenizer/prompts.json").prompts
    let oracle = try TestFiles.json(Oracle.self, "smollm2/smollm2.json")
    let model = try LlamaModel(path: TestFiles.modelPath, storage: .exact)
    for expected in oracle.cases {
      guard let greedy = expected.greedy else { continue }
      let prompt = try #require(prompts.first { $0.name == expected.name })
      var generator = try Generator(model, sampling: .greedy, seed: 0, ignoringEnd: true)
      try generator.read(prompt.ids)
      while generator.generated.count < greedy.ids.count, try generator.next() != nil {}
      // the narrowest gap between the two likeliest tokens is 0.04, over 100 times the error of a logit
      #expect(generator.generated == greedy.ids, "\(expected.name)")
    }
  }

  @Test func lossOfAPassageMatchesTransformers() throws {
    let prompts = try TestFiles.json(Prompts.self, "tokenizer/prompts.json").prompts
    let oracle = try TestFiles.json(Oracle.self, "smollm2/smollm2.json")
    let expected = try #require(oracle.cases.first { $0.meanNll != nil })
    let prompt = try #require(prompts.first { $0.name == expected.name })
    let model = try LlamaModel(path: TestFiles.modelPath, storage: .exact)
    let report = try PerplexityEvaluation(contextLength: 256, chunk: 96).run(model, tokens: prompt.ids)
    let mean = try #require(expected.meanNll)
    #expect(report.scoredTokens == 255)
    #expect(abs(report.meanNLL - mean) < 1e-4)
  }

  /// Weights decoded in every product give the same numbers as weights decoded once; inputs rounded to 8 bits are near.
  @Test func storagesGiveTheSameLogits() throws {
    let tokens: [Int32] = [504, 3575, 282, 4649]
    var results: [WeightStorage: [Float]] = [:]
    var bytes: [WeightStorage: Int] = [:]
    for storage in WeightStorage.allCases {
      let model = try LlamaModel(path: TestFiles.modelPath, storage: storage)
      bytes[storage] = model.weightByteCount
      var cache = try model.makeCache()
      var workspace = Workspace()
      results[storage] = try model.prefill(tokens, into: &cache, workspace: &workspace).array()
    }
    let decoded = try #require(results[.f32])
    #expect(relativeError(try #require(results[.exact]), decoded) < 1e-5)
    let rounded = relativeError(try #require(results[.native]), decoded)
    print("SmolLM2: relative error of logits with inputs rounded to 8 bits \(rounded)")
    #expect(rounded < 0.15)
    #expect(bytes[.native] == bytes[.exact])
    // as many as the file's tensors of products, which the f32 ones are over six times
    #expect(try #require(bytes[.native]) < 98_362_432)
    #expect(try #require(bytes[.f32]) > 500_000_000)
  }
}
