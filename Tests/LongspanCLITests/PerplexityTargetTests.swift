import Foundation
import Testing

/// Perplexity of SmolLM2 on Persuasion against Hugging Face transformers in float32 on the dequantized weights:
/// tokens 2000 to 18383, windows that do not overlap, within 0.5%.
@Suite(.serialized) struct PerplexityTargetTests {
  private static let model: String =
    ProcessInfo.processInfo.environment["LONGSPAN_MODEL"]
    ?? Command.root.appending(path: ".build/models/SmolLM2-135M-Instruct.Q4_1.gguf").path

  private static let runs: Bool =
    ProcessInfo.processInfo.environment["CI"] == "true" || FileManager.default.fileExists(atPath: model)

  @Test(
    .enabled(if: runs, "needs SmolLM2: set LONGSPAN_MODEL, or let Tests/run.sh fetch it"),
    arguments: [(512, 43.445), (2048, 36.533), (8192, 33.994), (16384, 59.834)])
  func matchesTransformers(context: Int, expected: Double) throws {
    let text = Command.root.appending(path: "Benchmarks/Data/persuasion.txt").path
    let result = try Command.run([
      "perplexity", "--model", Self.model, "--text", text, "--skip", "2000", "--tokens", "16384", "--context",
      "\(context)", "--json",
    ])
    #expect(result.status == 0, "\(result.errors)")
    let object = try JSONSerialization.jsonObject(with: Data(result.output.utf8)) as? [String: Any]
    let perplexity = try #require(object?["perplexity"] as? Double)
    print("perplexity at context \(context): \(perplexity), expected \(expected)")
    #expect(abs(perplexity / expected - 1) < 0.005)
  }
}
