import Longspan
import LongspanKernels
import Testing

@testable import LongspanModels

@Suite struct PolicyComparisonTests {
  private static func model() throws -> LlamaModel {
    try LlamaModel(path: TestFiles.fixture("tiny/tied.gguf").path, context: KernelContext(threads: 2))
  }

  private static let tokens = (0..<Int32(150)).map { $0 * 7 % 250 }

  @Test func perplexityIsThatOfTheEvaluation() throws {
    let model = try Self.model()
    var updates: [ProgressUpdate] = []
    let results = try PolicyComparison(contextLength: 64, chunk: 20, generated: 5).run(
      model, tokens: Self.tokens, policies: [DensePolicy()]
    ) {
      updates.append($0)
      return true
    }
    let result = try #require(results.first)
    #expect(results.count == 1 && result.policy == "dense")
    let alone = try PerplexityEvaluation(contextLength: 64, chunk: 20).run(model, tokens: Self.tokens)
    #expect(result.perplexity == alone)
    #expect(result.perplexity.cacheSlots == 64)
    #expect(result.decodeSeconds.count == 5 && result.decodeSeconds.allSatisfy { $0 > 0 })
    #expect(result.readingTokensPerSecond > 0 && result.scoringTokensPerSecond > 0)
    #expect(updates.allSatisfy { $0.total == 150 + 64 + 5 } && updates.last?.completed == 150 + 64 + 5)
    #expect(updates.map(\.completed) == updates.map(\.completed).sorted())
  }

  @Test(arguments: [([3, 1, 2], 2), ([4, 1, 2, 3], 2.5), ([5], 5)] as [([Double], Double)])
  func decodeSpeedIsFromTheMedian(seconds: [Double], median: Double) throws {
    let report = try PerplexityEvaluation(contextLength: 4).run(Self.model(), tokens: [1, 2, 3])
    let result = PolicyMeasurement(
      policy: "dense", perplexity: report, scoringTokensPerSecond: 1, readingTokensPerSecond: 1,
      decodeSeconds: seconds)
    #expect(result.medianDecodeSeconds == median && result.decodeTokensPerSecond == 1 / median)
  }

  @Test func whatCannotRunIsRefused() throws {
    let model = try Self.model()
    func code(
      _ comparison: PolicyComparison, tokens: [Int32] = Self.tokens,
      policies: [any KVCachePolicy] = [DensePolicy()], progress: ProgressHandler? = nil
    ) -> LongspanError.Code? {
      do throws(LongspanError) {
        _ = try comparison.run(model, tokens: tokens, policies: policies, progress: progress)
        return nil
      } catch {
        return error.code
      }
    }
    let good = PolicyComparison(contextLength: 64, generated: 1)
    #expect(code(good) == nil)
    #expect(code(PolicyComparison(contextLength: 1)) == .invalidArgument)
    #expect(code(PolicyComparison(contextLength: 64, chunk: 0)) == .invalidArgument)
    #expect(code(PolicyComparison(contextLength: 64, generated: 0)) == .invalidArgument)
    #expect(code(PolicyComparison(contextLength: 64, generated: .max)) == .invalidArgument)
    #expect(code(good, tokens: []) == .invalidText)
    #expect(code(good, tokens: [1]) == .invalidText)
    #expect(code(good, policies: []) == .invalidArgument)
    #expect(code(good, policies: [DensePolicy(), DensePolicy()]) == .invalidArgument)
    for stage in ["scoring", "reading", "generating"] {
      #expect(code(good, progress: { $0.stage != stage }) == .cancelled)
    }
  }
}
