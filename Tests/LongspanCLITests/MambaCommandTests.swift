import Foundation
import Testing

/// The commands on Mamba models, from GGUF files and from folders.
@Suite(.serialized) struct MambaCommandTests {
  private static let novel = Command.root.appending(path: "Benchmarks/Data/persuasion.txt").path
  private static let models = ["mamba.gguf", "mamba-untied", "mamba2", "mamba2-untied.gguf"]

  private static func path(_ name: String) -> String {
    Command.root.appending(path: "Tests/Fixtures/tiny-mamba/\(name)").path
  }

  private static func json(_ arguments: [String]) throws -> [String: Any] {
    let result = try Command.run(arguments + ["--json"])
    #expect(result.status == 0, "\(result.errors)")
    return try #require(try JSONSerialization.jsonObject(with: Data(result.output.utf8)) as? [String: Any])
  }

  @Test(arguments: models) func commandsRun(name: String) throws {
    let model = Self.path(name)
    let info = try Self.json(["info", "--model", model])
    let shape = try #require(info["model"] as? [String: Any])
    let state = try #require(shape["state_bytes"] as? Int)
    #expect(state > 0 && shape["cache_bytes"] == nil)

    let text = try Self.json(["generate", "--model", model, "--prompt", "Hello", "-n", "5", "--ignore-end"])
    #expect((text["tokens"] as? [Int])?.count == 5)
    #expect(text["cache_bytes"] as? Int == state)
    #expect(text["kv"] as? String == "recurrent")

    let text2 = ["--text", Self.novel, "--tokens", "200", "--context", "64"]
    let plain = try Self.json(["perplexity", "--model", model] + text2)
    #expect(plain["cache_bytes"] as? Int == state)
    #expect((plain["perplexity"] as? Double)?.isFinite == true)
    let scaled = try Self.json(["perplexity", "--model", model, "--filter", "scale:factor=0.5"] + text2)
    #expect(scaled["filter"] as? String == "scale:factor=0.5")
    #expect(scaled["perplexity"] as? Double != plain["perplexity"] as? Double)

    let profile = try Self.json([
      "profile", "--model", model, "--text", Self.novel, "--tokens", "40", "--generate", "2", "--seconds",
      "0",
    ])
    let phases = try #require(profile["phases"] as? [[String: Any]])
    let names = phases.map { phase in
      (phase["kernels"] as? [[String: Any]] ?? []).compactMap { $0["name"] as? String }
    }
    let kernels =
      name.hasPrefix("mamba2") ? ["ssd_scan", "ssd_update"] : ["selective_scan", "selective_update"]
    for (phase, kernel) in zip(names, kernels) {
      #expect(phase.contains { $0.hasPrefix(kernel) }, "\(phase)")
      #expect(phase.contains { $0.hasPrefix("causal_conv") }, "\(phase)")
    }
  }

  @Test func tablesNameTheState() throws {
    let result = try Command.run(["info", "--model", Self.path("mamba2")])
    #expect(result.status == 0 && result.output.contains("6 heads of 14 in 1 group,"))
    #expect(result.output.contains("whatever the context"))
    let text = try Command.run(["generate", "--model", Self.path("mamba"), "--prompt", "Hello", "-n", "2"])
    #expect(text.status == 0 && text.errors.contains("state "))
  }

  @Test(arguments: [
    (["--model", path("mamba.gguf"), "--kv", "lagkv"], "cache policy 'lagkv"),
    (["--model", path("mamba2"), "--cache-type", "f16"], "cache type f16"),
    (["--model", path("mamba2"), "--filter", "wishful"], "no filter is named 'wishful'"),
    (["--model", Command.root.appending(path: "Tests").path], "config.json"),
    (
      ["--model", Command.root.appending(path: "Tests/Fixtures/tiny/tied.gguf").path, "--filter", "scale"],
      "time steps"
    ),
  ])
  func whatDoesNotGoTogetherIsRefused(arguments: [String], part: String) throws {
    let result = try Command.run(["generate", "--prompt", "Hello", "-n", "1"] + arguments)
    #expect(result.status == 1)
    #expect(
      result.errors.contains(part) && result.errors.split(separator: "\n").count == 1, "\(result.errors)")
  }
}
