import Foundation
import Testing

#if canImport(FoundationXML)
  import FoundationXML
#endif

/// Runs `longspan eval passkey` and `longspan compare` on a tiny model with a dense and a compressed cache.
@Suite(.serialized) struct PolicyCommandTests {
  private static let tiny = Command.root.appending(path: "Tests/Fixtures/tiny/tied.gguf").path
  private static let novel = Command.root.appending(path: "Benchmarks/Data/persuasion.txt").path
  private static let lag = "lagkv:sink=4,lag=8,ratio=0.5"
  private static let policies = ["--kv", "dense", "--kv", lag, "--threads", "2"]
  private static let passkey = ["eval", "passkey", "--model", tiny, "--lengths", "800,1000", "--depths", "3"]
  private static let compare = [
    "compare", "--model", tiny, "--text", novel, "--tokens", "300", "--context", "128", "--generate", "8",
  ]

  /// Slots that LagKV with sink 4, lag 8 and half of each window keeps of a text.
  private static func lagSlots(_ tokens: Int) -> Int {
    4 + 4 * ((tokens - 4) / 8 - 1) + 8 + (tokens - 4) % 8
  }

  private static func object(_ result: Command.Result) throws -> [String: Any] {
    #expect(result.status == 0, "\(result.errors)")
    return try #require(
      try JSONSerialization.jsonObject(with: Data(result.output.utf8)) as? [String: Any])
  }

  /// Calls `body` with a path for a plot, and returns the classes of the groups in what was written there.
  private static func groups(_ body: (String) throws -> Void) throws -> [String] {
    final class Reader: NSObject, XMLParserDelegate {
      var classes: [String] = []
      func parser(
        _ parser: XMLParser, didStartElement name: String, namespaceURI: String?, qualifiedName: String?,
        attributes: [String: String]
      ) {
        if let one = attributes["class"] { classes.append(one) }
      }
    }
    let plot = FileManager.default.temporaryDirectory.appending(path: "longspan-\(UUID().uuidString).svg")
    defer { try? FileManager.default.removeItem(at: plot) }
    try body(plot.path)
    let parser = XMLParser(data: try Data(contentsOf: plot))
    let reader = Reader()
    parser.delegate = reader
    #expect(parser.parse(), "\(String(describing: parser.parserError))")
    return reader.classes
  }

  @Test func passkeyPrintsJSONAndAPlot() throws {
    let groups = try Self.groups { plot in
      let object = try Self.object(
        Command.run(
          Self.passkey + Self.policies + ["--samples", "2", "--seed", "3", "--json", "--plot", plot]))
      #expect(object["seed"] as? Int == 3 && object["threads"] as? Int == 2)
      #expect(object["samples"] as? Int == 2 && object["cache_type"] as? String == "f32")
      let rows = try #require(object["rows"] as? [[String: Any]])
      #expect(rows.compactMap { $0["length"] as? Int } == [800, 1000, 800, 1000])
      #expect(rows.compactMap { ($0["kv"] as? String)?.prefix(5) } == ["dense", "dense", "lagkv", "lagkv"])
      #expect(
        rows.compactMap { $0["cache_slots"] as? Int }
          == [800, 1000, Self.lagSlots(800), Self.lagSlots(1000)])
      // 2 layers of keys and values in 1 head of 24 floats, with a position where tokens were given up
      #expect(
        rows.compactMap { $0["cache_bytes"] as? Int }
          == [
            800 * 384, 1000 * 384, Self.lagSlots(800) * (384 + 2 * 4), Self.lagSlots(1000) * (384 + 2 * 4),
          ])
      var keys: [[String]] = []
      for row in rows {
        #expect(row["trials"] as? Int == 6)
        let exact = try #require(row["exact"] as? Double)
        let partial = try #require(row["partial"] as? Double)
        #expect(exact >= 0 && exact <= partial && partial <= 1)
        #expect((row["seconds"] as? Double ?? 0) > 0 && (row["read_tokens_per_second"] as? Double ?? 0) > 0)
        let depths = try #require(row["depths"] as? [[String: Any]])
        #expect(depths.compactMap { $0["depth"] as? Double } == [0, 0.5, 1])
        let answers = depths.flatMap { $0["answers"] as? [[String: Any]] ?? [] }
        #expect(answers.count == 6 && answers.allSatisfy { $0["answer"] is String })
        keys.append(answers.compactMap { $0["key"] as? String })
      }
      // every policy is asked for the same keys
      #expect(keys[0] == keys[2] && keys[1] == keys[3] && keys[0] != keys[1])
    }
    #expect(groups == ["panel", "panel"])
  }

  @Test func passkeyPrintsATable() throws {
    let result = try Command.run(Self.passkey + Self.policies)
    #expect(result.status == 0, "\(result.errors)")
    let lines = result.output.split(separator: "\n")
    #expect(lines.count == 2 + 4, "\(result.output)")
    #expect(lines.filter { $0.hasPrefix("dense ") }.count == 2)
    #expect(lines.filter { $0.hasPrefix("lagkv:") }.count == 2)
    #expect(lines.dropFirst().allSatisfy { $0.count == lines[1].count }, "\(result.output)")
  }

  @Test func passkeyAsksAsAChat() throws {
    let object = try Self.object(
      Command.run(Self.passkey + ["--chat", "--lengths", "900", "--json", "--threads", "2"]))
    #expect(object["chat"] as? Bool == true)
    let rows = try #require(object["rows"] as? [[String: Any]])
    #expect(rows.compactMap { $0["cache_slots"] as? Int } == [900])
  }

  /// Without --kv the cache is dense.
  @Test func passkeyIsDenseByDefault() throws {
    let object = try Self.object(Command.run(Self.passkey + ["--json", "--threads", "1"]))
    let rows = try #require(object["rows"] as? [[String: Any]])
    #expect(rows.compactMap { $0["kv"] as? String } == ["dense", "dense"])
  }

  @Test func comparePrintsJSONAndAPlot() throws {
    let groups = try Self.groups { plot in
      let object = try Self.object(Command.run(Self.compare + Self.policies + ["--json", "--plot", plot]))
      #expect(object["threads"] as? Int == 2 && object["context"] as? Int == 128)
      #expect(object["tokens"] as? Int == 300 && object["generate"] as? Int == 8)
      let rows = try #require(object["policies"] as? [[String: Any]])
      #expect(rows.count == 2)
      #expect(rows.compactMap { $0["cache_slots"] as? Int } == [128, Self.lagSlots(128)])
      for row in rows {
        #expect((row["perplexity"] as? Double ?? 0) > 1)
        #expect(row["scored_tokens"] as? Int == 297)
        #expect((row["decode_seconds"] as? [Double])?.count == 8)
        for key in ["reading_tokens_per_second", "decode_tokens_per_second", "scoring_tokens_per_second"] {
          #expect((row[key] as? Double ?? 0) > 0)
        }
        let median = try #require(row["decode_median_seconds"] as? Double)
        let speed = try #require(row["decode_tokens_per_second"] as? Double)
        #expect(abs(median * speed - 1) < 1e-9)
      }
      for (ratio, value) in [
        ("perplexity_ratio", "perplexity"), ("cache_bytes_ratio", "cache_bytes"),
        ("decode_speed_ratio", "decode_tokens_per_second"),
      ] {
        let values = rows.compactMap { $0[value] as? Double }
        let ratios = rows.compactMap { $0[ratio] as? Double }
        #expect(ratios.count == 2 && ratios[0] == 1 && abs(ratios[1] - values[1] / values[0]) < 1e-9)
      }
      // the perplexity is that of `longspan perplexity`
      let alone = try Self.object(
        Command.run([
          "perplexity", "--model", Self.tiny, "--text", Self.novel, "--tokens", "300", "--context", "128",
          "--kv", Self.lag, "--threads", "2", "--json",
        ]))
      let expected = try #require(alone["perplexity"] as? Double)
      #expect(abs((rows[1]["perplexity"] as? Double ?? 0) / expected - 1) < 1e-6)
      #expect(rows[1]["cache_bytes"] as? Int == alone["cache_bytes"] as? Int)
    }
    #expect(groups == ["point", "point"])
  }

  @Test func comparePrintsATable() throws {
    let result = try Command.run(Self.compare + Self.policies)
    #expect(result.status == 0, "\(result.errors)")
    let lines = result.output.split(separator: "\n")
    #expect(lines.count == 2 + 2 && lines[0].contains("2 threads"), "\(result.output)")
    #expect(lines.dropFirst().allSatisfy { $0.count == lines[1].count }, "\(result.output)")
  }

  @Test(arguments: [
    (passkey + ["--lengths", "20"], "a length of 20 tokens is too short"),
    (passkey + ["--lengths", "800,x"], "--lengths: 'x'"),
    (passkey + ["--lengths", ""], "--lengths: ''"),
    (passkey + ["--lengths", "800,800"], "each only once"),
    (passkey + ["--lengths", "9223372036854775807"], "9223372036854775807"),
    (passkey + ["--depths", "0"], "--depths 0"),
    (passkey + ["--depths", "9223372036854775807"], "--depths"),
    (passkey + ["--samples", "0"], "--samples 0"),
    (passkey + ["--seed", "-1"], "--seed"),
    (passkey + ["--chunk", "0"], "--chunk 0"),
    (passkey + ["--kv", "sparse"], "there are dense, lagkv"),
    (passkey + ["--kv", "dense", "--kv", "dense"], "'dense' is given twice"),
    (passkey + ["--kv", lag, "--kv", lag + ",positions=absolute"], "is given twice"),
    (passkey + ["--kv", "lagkv:lag=0"], "lag 0"),
    (passkey + ["--plot", "/nowhere/plot.svg"], "/nowhere/plot.svg: cannot be written"),
    (passkey + ["--isa", "mmx"], "mmx"),
    (["eval", "frobnicate"], "frobnicate"),
    (compare + ["--context", "1"], "--context 1"),
    (compare + ["--generate", "0"], "--generate 0"),
    (compare + ["--generate", "9223372036854775807"], "9223372036854775807"),
    (compare + ["--context", "1000000000000", "--tokens", "99999999"], "fewer than 99999999"),
    (compare + ["--context", "9223372036854775807"], "64 bits"),
    (compare + ["--skip", "-1"], "--skip"),
    (compare + ["--skip", "99999999"], "too few to predict"),
    (compare + ["--text", "/nowhere.txt"], "/nowhere.txt"),
    (compare + ["--kv", "dense:sink=1"], "dense: has no parameters"),
    (compare + ["--kv", "dense", "--kv", "dense"], "'dense' is given twice"),
    (compare + ["--chunk", "0"], "--chunk 0"),
    (compare + ["--plot", "/"], "/: cannot be written"),
  ])
  func failuresAreOneLineThatNamesTheFault(arguments: [String], message: String) throws {
    let result = try Command.run(arguments)
    #expect(result.status == 1)
    #expect(result.output.isEmpty)
    #expect(result.errors.split(separator: "\n").count == 1, "\(result.errors)")
    #expect(result.errors.hasPrefix("longspan: "))
    #expect(result.errors.contains(message), "\(result.errors)")
  }

  @Test func helpSucceeds() throws {
    for arguments in [["eval", "--help"], ["eval", "passkey", "--help"], ["help", "compare"]] {
      let result = try Command.run(arguments)
      #expect(result.status == 0 && !result.output.isEmpty)
    }
  }
}
