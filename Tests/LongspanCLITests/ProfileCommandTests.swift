import Foundation
import Testing

/// Runs `longspan profile` on a tiny model and checks what a person, a program and a trace viewer see.
@Suite(.serialized) struct ProfileCommandTests {
  private static let tiny = Command.root.appending(path: "Tests/Fixtures/tiny/tied.gguf").path
  private static let novel = Command.root.appending(path: "Benchmarks/Data/persuasion.txt").path
  private static let basics = ["profile", "--model", tiny, "--threads", "2", "--seconds", "0"]

  @Test func printsTables() throws {
    let result = try Command.run(
      Self.basics + ["--text", Self.novel, "--tokens", "60", "--generate", "4", "--cache-type", "f16"])
    #expect(result.status == 0, "\(result.errors)")
    let lines = result.output.split(separator: "\n").map(String.init)
    for start in [
      "ceilings", "prefill: 60 tokens", "decode: 4 tokens", "attention_prefill_f16", "attention_decode_f16",
      "product_f32", "rms_norm", "outside kernels", "layer ", "embedding ", "0 ", "1 ", "output ",
    ] {
      #expect(lines.contains { $0.hasPrefix(start) }, "\(start) in \(result.output)")
    }
  }

  @Test func printsJSONAndWritesATrace() throws {
    let trace = FileManager.default.temporaryDirectory.appending(path: "longspan-\(UUID().uuidString).json")
    defer { try? FileManager.default.removeItem(at: trace) }
    let result = try Command.run(
      Self.basics + [
        "--text", Self.novel, "--tokens", "40", "--chunk", "16", "--generate", "2", "--json", "--trace",
        trace.path,
      ])
    #expect(result.status == 0, "\(result.errors)")
    let object = try #require(
      try JSONSerialization.jsonObject(with: Data(result.output.utf8)) as? [String: Any])
    #expect(object["threads"] as? Int == 2 && object["lost_calls"] as? Int == 0)
    #expect(object["machine"] is [String: Any] && object["ceilings"] is [String: Any])
    let phases = try #require(object["phases"] as? [[String: Any]])
    #expect(phases.compactMap { $0["name"] as? String } == ["prefill", "decode"])
    for phase in phases {
      let kernels = try #require(phase["kernels"] as? [[String: Any]])
      let layers = try #require(phase["layers"] as? [[String: Any]])
      #expect(layers.compactMap { $0["layer"] as? String } == ["embedding", "0", "1", "output"])
      func sum(_ rows: [[String: Any]], _ key: String) -> Double {
        rows.reduce(0) { $0 + ($1[key] as? Double ?? .nan) }
      }
      let seconds = try #require(phase["seconds"] as? Double)
      let inKernels = try #require(phase["kernel_seconds"] as? Double)
      let host = try #require(phase["host_seconds"] as? Double)
      #expect(abs(inKernels + host - seconds) < 1e-9)
      #expect(abs(sum(kernels, "seconds") - inKernels) < 1e-9)
      #expect(abs(sum(layers, "seconds") - inKernels) < 1e-9)
      #expect(abs(sum(kernels, "share") + (phase["host_share"] as? Double ?? .nan) - 1) < 1e-6)
      #expect(sum(kernels, "bytes") == sum(layers, "bytes") && sum(kernels, "flops") == sum(layers, "flops"))
      for row in kernels {
        #expect(row["ceiling"] is String)
        #expect((row["fraction_of_ceiling"] as? Double ?? -1) > 0, "\(row)")
      }
    }

    let whole = try #require(
      try JSONSerialization.jsonObject(with: Data(contentsOf: trace)) as? [String: Any])
    let events = try #require(whole["traceEvents"] as? [[String: Any]])
    let slices = events.filter { $0["ph"] as? String == "X" }
    for slice in slices {
      #expect(slice["ts"] is Double && slice["dur"] is Double && slice["name"] is String)
      #expect(slice["pid"] as? Int == 1 && slice["tid"] is Int)
    }
    // 3 chunks and 2 tokens, each the embedding, 2 layers of 10 calls and the last norm; logits of 1 and 2 rows
    #expect(slices.count { $0["cat"] as? String == "kernel" } == 5 * (1 + 2 * 10 + 1) + 3)
    #expect(slices.count { $0["cat"] as? String == "layer" } == 5 * 4)
    #expect(slices.count { $0["cat"] as? String == "phase" } == 2)
    let named = events.filter { $0["ph"] as? String == "M" }.compactMap { $0["name"] as? String }
    #expect(named == ["process_name", "thread_name"])
  }

  @Test(arguments: [
    ([], "there is no prompt"),
    (["--text", novel, "--prompt-file", novel], "not both"),
    (["--prompt-file", novel, "--tokens", "3"], "--tokens goes with --text"),
    (["--text", novel, "--tokens", "0"], "--tokens"),
    (["--text", novel, "--tokens", "99999999"], "fewer than 99999999"),
    (["--text", novel, "--generate", "-1"], "--generate"),
    (["--text", novel, "--tokens", "9", "--generate", "9223372036854775807"], "64 bits"),
    (["--text", novel, "--tokens", "9", "--generate", "999999999999"], "2^31 is the most"),
    (["--text", novel, "--chunk", "0"], "--chunk"),
    (["--text", novel, "--isa", "mmx"], "mmx"),
    (["--text", "/nowhere.txt"], "/nowhere.txt"),
    (["--text", novel, "--trace", "/nowhere/trace.json"], "/nowhere/trace.json: cannot be written"),
  ])
  func failuresAreOneLineThatNamesTheFault(arguments: [String], message: String) throws {
    let result = try Command.run(Self.basics + arguments)
    #expect(result.status == 1)
    #expect(result.output.isEmpty)
    #expect(result.errors.split(separator: "\n").count == 1, "\(result.errors)")
    #expect(result.errors.hasPrefix("longspan: "))
    #expect(result.errors.contains(message), "\(result.errors)")
  }
}
