import Foundation
import Testing

/// Runs `longspan generate` and `perplexity` with `--decode`.
@Suite(.serialized) struct DecodeCommandTests {
  private static let tiny = Command.root.appending(path: "Tests/Fixtures/tiny/tied.gguf").path
  private static let layered = Command.root.appending(path: "Tests/Fixtures/dmtd/dmtd.gguf").path
  private static let mamba = Command.root.appending(path: "Tests/Fixtures/tiny-mamba/mamba.gguf").path
  private static let novel = Command.root.appending(path: "Benchmarks/Data/persuasion.txt").path
  private static let sampling = ["--temperature", "3", "--top-k", "20", "--seed", "4"]

  private static func generate(_ model: String, _ more: [String]) -> [String] {
    ["generate", "--model", model, "--prompt", "abab abab", "-n", "30", "--ignore-end", "--threads", "1"]
      + more
  }

  private static func perplexity(_ more: [String]) -> [String] {
    [
      "perplexity", "--model", layered, "--text", novel, "--tokens", "120", "--context", "60",
      "--threads", "1",
    ] + more
  }

  private static func object(_ arguments: [String]) throws -> [String: Any] {
    let result = try Command.run(arguments + ["--json"])
    #expect(result.status == 0, "\(result.errors)")
    return try #require(
      try JSONSerialization.jsonObject(with: Data(result.output.utf8)) as? [String: Any])
  }

  @Test(arguments: [
    ("lookup", "lookup:ngram=3,least=2,draft=7"),
    ("lookup:ngram=2,least=1,draft=3", "lookup:ngram=2,least=1,draft=3"),
    ("selfspec:late=2,cycle=3", "selfspec:cycle=3,late=2,early=0"),
    ("selfspec:late=1,early=2", "selfspec:cycle=4,late=1,early=2"),
  ])
  func draftingKeepsTheText(method: String, name: String) throws {
    for sampling in [[], Self.sampling] {
      let plain = try Self.object(Self.generate(Self.layered, sampling))
      #expect(plain["decode"] as? String == "plain" && plain["draft"] == nil)
      let drafted = try Self.object(Self.generate(Self.layered, sampling + ["--decode", method]))
      #expect(drafted["decode"] as? String == name)
      #expect(drafted["tokens"] as? [Int] == plain["tokens"] as? [Int])
      #expect(drafted["text"] as? String == plain["text"] as? String)
      #expect(drafted["cache_tokens"] as? Int == plain["cache_tokens"] as? Int)
      #expect(drafted["cache_bytes"] as? Int == plain["cache_bytes"] as? Int)
      let draft = try #require(drafted["draft"] as? [String: Any])
      let passes = try #require(draft["passes"] as? Int)
      let accepted = try #require(draft["accepted"] as? Int)
      let byPosition = try #require(draft["accepted_by_position"] as? [Int])
      let proposed = try #require(draft["drafted_by_position"] as? [Int])
      // the first of the 30 tokens comes from the prompt's pass
      #expect(draft["tokens"] as? Int == 29 && passes + accepted == 29)
      #expect(byPosition.reduce(0, +) == accepted && byPosition.count == proposed.count)
      #expect(draft["drafted"] as? Int == proposed.reduce(0, +))
      for (key, value) in [
        ("tokens_per_pass", 29 / Double(passes)), ("mean_accepted", Double(accepted) / Double(passes)),
      ] {
        #expect(abs(try #require(draft[key] as? Double) - value) < 1e-9)
      }
    }
  }

  @Test func theSummaryCountsDrafts() throws {
    let result = try Command.run(Self.generate(Self.tiny, ["--decode", "lookup:draft=4"]))
    #expect(result.status == 0)
    #expect(result.errors.contains(" drafted tokens accepted ("), "\(result.errors)")
    #expect(result.errors.contains(" tokens a pass"), "\(result.errors)")
    let plain = try Command.run(Self.generate(Self.tiny, []))
    #expect(plain.output == result.output && !plain.errors.contains("draft"))
  }

  @Test func multiTokenDecodingRuns() throws {
    let plain = try Self.object(Self.generate(Self.layered, []))
    let method = "dmtd:cycle=3,late=2,early=1,phase=absolute"
    let other = try Self.object(Self.generate(Self.layered, ["--decode", method]))
    #expect(other["decode"] as? String == method && other["draft"] == nil)
    #expect((other["tokens"] as? [Int])?.count == 30)
    // another model, so to speak
    #expect(other["tokens"] as? [Int] != plain["tokens"] as? [Int])
    let scored = try Self.object(Self.perplexity(["--decode", method]))
    let unscheduled = try Self.object(Self.perplexity([]))
    #expect(scored["decode"] as? String == method && unscheduled["decode"] as? String == "plain")
    #expect((scored["perplexity"] as? Double ?? 0) > 1)
    #expect(scored["perplexity"] as? Double != unscheduled["perplexity"] as? Double)
  }

  @Test func helpSaysWhatChangesTheText() throws {
    for command in ["generate", "perplexity"] {
      let help = try Command.run([command, "--help"]).output.split(whereSeparator: \.isWhitespace)
        .joined(separator: " ")
      #expect(help.contains("changes the model's output distribution"), "\(help)")
      #expect(help.contains("needs a model trained for it"), "\(help)")
      #expect(help.contains("lookup with ngram=3") == (command == "generate"), "\(help)")
    }
  }

  @Test(arguments: [
    (generate(layered, ["--decode", "medusa"]), "there are plain, dmtd, selfspec, lookup"),
    (generate(layered, ["--decode", "dmtd:tau=2"]), "cycle, late, early, phase"),
    (generate(layered, ["--decode", "dmtd"]), "late 8 is more than the model's 5 layers"),
    (generate(layered, ["--decode", "selfspec"]), "none of the model's 5 layers"),
    (generate(layered, ["--decode", "lookup:draft=0"]), "draft 0"),
    (generate(layered, ["--decode", "lookup", "--kv", "lagkv:lag=8"]), "lagkv:sink=16,lag=8"),
    (generate(layered, ["--decode", "selfspec:late=2", "--kv", "lagkv:lag=8"]), "lagkv:sink=16,lag=8"),
    (generate(mamba, ["--decode", "lookup"]), "a state of mamba"),
    (generate(mamba, ["--decode", "selfspec"]), "mamba"),
    (generate(mamba, ["--decode", "dmtd"]), "mamba"),
    (perplexity(["--decode", "lookup"]), "that of plain decoding"),
    (perplexity(["--decode", "selfspec"]), "that of plain decoding"),
    (perplexity(["--decode", "dmtd:cycle=0"]), "cycle 0"),
  ])
  func failuresAreOneLineThatNamesTheFault(arguments: [String], message: String) throws {
    let result = try Command.run(arguments)
    #expect(result.status == 1)
    #expect(result.output.isEmpty)
    #expect(result.errors.split(separator: "\n").count == 1, "\(result.errors)")
    #expect(result.errors.hasPrefix("longspan: "))
    #expect(result.errors.contains(message), "\(result.errors)")
  }
}
