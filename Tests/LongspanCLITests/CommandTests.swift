import Foundation
import Testing

/// Runs the built command and checks what a person or a program sees.
@Suite(.serialized) struct CommandTests {
  private static let tiny = Command.root.appending(path: "Tests/Fixtures/tiny/tied.gguf").path
  private static let novel = Command.root.appending(path: "Benchmarks/Data/persuasion.txt").path

  @Test func infoShowsTheMachineAndAModel() throws {
    let plain = try Command.run(["info", "--model", Self.tiny])
    #expect(plain.status == 0)
    #expect(plain.output.contains("ISA variant"))
    #expect(plain.output.contains("memory in use"))

    let json = try Command.run(["info", "--model", Self.tiny, "--threads", "1", "--json"])
    let object = try #require(
      try JSONSerialization.jsonObject(with: Data(json.output.utf8)) as? [String: Any])
    let machine = try #require(object["machine"] as? [String: Any])
    let model = try #require(object["model"] as? [String: Any])
    #expect(machine["threads"] as? Int == 1)
    #expect(model["layers"] as? Int == 2)
    // 2 layers, keys and values, 1 head of 24, 4 bytes
    #expect(model["cache_bytes_per_token"] as? Int == 2 * 2 * 24 * 4)
    #expect((model["resident_bytes"] as? Int ?? 0) > 0)
  }

  @Test func generateIsReproducible() throws {
    func run(_ seed: String, _ more: String...) throws -> [Int] {
      let result = try Command.run(
        [
          "generate", "--model", Self.tiny, "--prompt", "Hello", "-n", "12", "--ignore-end", "--temperature",
          "1",
          "--seed", seed, "--json",
        ] + more)
      #expect(result.status == 0, "\(result.errors)")
      let object = try JSONSerialization.jsonObject(with: Data(result.output.utf8)) as? [String: Any]
      return try #require(object?["tokens"] as? [Int])
    }
    let first = try run("3")
    #expect(first.count == 12)
    #expect(try run("3") == first)
    #expect(try run("3", "--isa", "scalar", "--threads", "1").count == 12)
    #expect(try run("4") != first)
  }

  @Test func anImpossibleSplitIsRefused() throws {
    let refused = try Command.run(["info", "--fixed-split", "5000"])
    #expect(refused.status == 1)
    #expect(refused.errors.contains("fixedSplit: 5000"))
  }

  @Test func generateReadsAsManyTokensOfThePromptAsAsked() throws {
    for count in [1, 37] {
      let result = try Command.run([
        "generate", "--model", Self.tiny, "--prompt-file", Self.novel, "--prompt-tokens", "\(count)", "-n",
        "3",
        "--ignore-end", "--json",
      ])
      #expect(result.status == 0, "\(result.errors)")
      let object = try #require(
        try JSONSerialization.jsonObject(with: Data(result.output.utf8)) as? [String: Any])
      #expect(object["prompt_tokens"] as? Int == count)
      // the token drawn last is not read
      #expect(object["cache_tokens"] as? Int == count + 2)
    }
  }

  @Test func perplexityWritesJSONAndAPlot() throws {
    let plot = FileManager.default.temporaryDirectory.appending(path: "longspan-\(UUID().uuidString).svg")
    defer { try? FileManager.default.removeItem(at: plot) }
    let result = try Command.run([
      "perplexity", "--model", Self.tiny, "--text", Self.novel, "--tokens", "300", "--context", "128",
      "--json",
      "--plot", plot.path,
    ])
    #expect(result.status == 0, "\(result.errors)")
    let object = try #require(
      try JSONSerialization.jsonObject(with: Data(result.output.utf8)) as? [String: Any])
    #expect(object["scored_tokens"] as? Int == 297)
    #expect((object["perplexity"] as? Double ?? 0) > 1)
    #expect(try String(contentsOf: plot, encoding: .utf8).hasPrefix("<svg"))
  }

  /// Chunk size, threads and cache reservation must not change a perplexity.
  @Test func perplexityDoesNotDependOnChunks() throws {
    var values: [Double] = []
    for chunk in ["7", "64", "512"] {
      let result = try Command.run([
        "perplexity", "--model", Self.tiny, "--text", Self.novel, "--tokens", "200", "--context", "100",
        "--chunk",
        chunk, "--json",
      ])
      let object = try JSONSerialization.jsonObject(with: Data(result.output.utf8)) as? [String: Any]
      values.append(try #require(object?["perplexity"] as? Double))
    }
    #expect(values.allSatisfy { abs($0 / values[0] - 1) < 1e-5 })
  }

  @Test func helpAndVersionSucceed() throws {
    for arguments in [["--help"], ["--version"], ["generate", "--help"], ["help", "perplexity"]] {
      let result = try Command.run(arguments)
      #expect(result.status == 0)
      #expect(!result.output.isEmpty)
    }
  }

  struct Failure: CustomTestStringConvertible, Sendable {
    let arguments: [String]
    let message: String
    var testDescription: String { arguments.joined(separator: " ") }
  }

  private static let failures = [
    Failure(arguments: ["generate", "--model", "/nowhere.gguf", "--prompt", "x"], message: "/nowhere.gguf"),
    Failure(arguments: ["generate", "--model", tiny, "--prompt", ""], message: "the prompt is empty"),
    Failure(arguments: ["generate", "--model", tiny], message: "there is no prompt"),
    Failure(
      arguments: ["generate", "--model", tiny, "--prompt", "x", "--prompt-file", novel], message: "not both"),
    Failure(
      arguments: ["generate", "--model", tiny, "--prompt", "x", "--temperature", "-1"], message: "temperature"
    ),
    Failure(arguments: ["generate", "--model", tiny, "--prompt", "x", "--top-p", "2"], message: "top-p"),
    Failure(arguments: ["generate", "--model", tiny, "--prompt", "x", "--isa", "mmx"], message: "mmx"),
    Failure(
      arguments: ["generate", "--model", tiny, "--prompt", "x", "--threads", "99999"], message: "99999"),
    Failure(arguments: ["generate", "--model", tiny, "--prompt", "x", "--chunk", "0"], message: "chunk"),
    Failure(arguments: ["generate", "--model", tiny, "--prompt", "x", "--cache-type", "f8"], message: "f8"),
    Failure(
      arguments: ["generate", "--model", tiny, "--prompt", "Hello there", "--context", "3", "-n", "3"],
      message: "do not fit a context of 3"),
    Failure(
      arguments: ["generate", "--model", tiny, "--prompt", "Hello", "--prompt-tokens", "999"],
      message: "fewer than --prompt-tokens 999"),
    Failure(
      arguments: ["generate", "--model", tiny, "--prompt", "Hello", "--prompt-tokens", "0"],
      message: "--prompt-tokens must be at least 1"),
    Failure(
      arguments: ["generate", "--model", tiny, "--prompt", "x", "--context", "1000000000000"],
      message: "would take"),
    Failure(
      arguments: ["generate", "--model", tiny, "--prompt", "x", "-n", "9223372036854775807"],
      message: "longspan: "),
    Failure(
      arguments: ["perplexity", "--model", tiny, "--text", novel, "--context", "1000000000000"],
      message: "would take"),
    Failure(
      arguments: ["perplexity", "--model", tiny, "--text", novel, "--context", "9223372036854775807"],
      message: "64 bits"),
    Failure(arguments: ["perplexity", "--model", tiny, "--text", "/nowhere.txt"], message: "/nowhere.txt"),
    Failure(arguments: ["perplexity", "--model", tiny, "--text", "/"], message: "/: cannot be read"),
    Failure(
      arguments: ["perplexity", "--model", tiny, "--text", novel, "--skip", "99999999"],
      message: "too few to predict"),
    Failure(
      arguments: ["perplexity", "--model", tiny, "--text", novel, "--context", "1"], message: "context"),
    Failure(
      arguments: ["perplexity", "--model", tiny, "--text", novel, "--tokens", "99999999"],
      message: "fewer than"),
    Failure(arguments: ["frobnicate"], message: "frobnicate"),
    Failure(arguments: ["generate", "--model", tiny, "--promptt", "x"], message: "--promptt"),
  ]

  @Test(arguments: failures) func failuresAreOneLineThatNamesTheFault(failure: Failure) throws {
    let result = try Command.run(failure.arguments)
    #expect(result.status == 1)
    #expect(result.output.isEmpty)
    let lines = result.errors.split(separator: "\n")
    #expect(lines.count == 1, "\(result.errors)")
    #expect(result.errors.hasPrefix("longspan: "))
    #expect(result.errors.contains(failure.message), "\(result.errors)")
  }

  @Test func textsMustBeUTF8() throws {
    let folder = FileManager.default.temporaryDirectory.appending(path: "longspan-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    let broken = folder.appending(path: "broken.txt")
    try Data("caf\u{E9} ".utf8 + [0x80, 0x41]).write(to: broken)
    let empty = folder.appending(path: "empty.txt")
    try Data().write(to: empty)
    for (file, message) in [(broken, "bad byte at offset 6"), (empty, "the file is empty")] {
      for arguments in [
        ["perplexity", "--model", Self.tiny, "--text", file.path],
        ["generate", "--model", Self.tiny, "--prompt-file", file.path],
      ] {
        let result = try Command.run(arguments)
        #expect(result.status == 1)
        #expect(result.errors.contains(message), "\(result.errors)")
      }
    }
  }

  /// A model file cut at every 1,000th byte is refused in one line, whatever is missing.
  @Test func truncatedModelsAreRefused() throws {
    let source = Command.root.appending(path: "Tests/Fixtures/tiny/missing-tensor.gguf")
    let whole = try Data(contentsOf: source)
    let file = FileManager.default.temporaryDirectory.appending(path: "longspan-\(UUID().uuidString).gguf")
    defer { try? FileManager.default.removeItem(at: file) }
    for length in stride(from: 0, to: whole.count, by: 1000) {
      try whole.prefix(length).write(to: file)
      let result = try Command.run(["info", "--model", file.path])
      #expect(result.status == 1, "cut at \(length)")
      #expect(result.errors.split(separator: "\n").count == 1, "cut at \(length): \(result.errors)")
    }
  }
}
