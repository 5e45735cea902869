import Foundation
import Longspan
import LongspanKernels
import Testing

@testable import LongspanModels

/// Files of Mamba models with something wrong in them, and runs of good ones.
@Suite(.serialized) struct MambaFileTests {
  /// Loads a changed copy of a fixture and returns the error.
  private func error(
    _ name: String, _ change: (inout [UInt8], borrowing GGUFFile) throws -> Void
  ) throws -> LongspanError? {
    let path = MambaFixtures.gguf(name)
    var bytes = try TestFiles.bytes(URL(filePath: path))
    try change(&bytes, try GGUFFile(path: path))
    return try TestFiles.withTemporaryFile(bytes) { path in
      do throws(LongspanError) {
        _ = try LanguageModels.load(path: path)
        return nil
      } catch {
        return error
      }
    }
  }

  /// Sets the 32-bit value of a metadata key.
  private static func set(_ key: String, to value: UInt32, in bytes: inout [UInt8]) throws {
    let end = try #require(Data(bytes).range(of: Data(key.utf8))).upperBound
    bytes.replaceSubrange(end + 4..<end + 8, with: GGUFBuilder.little(value))
  }

  @Test(arguments: ["mamba", "mamba2"]) func missingTensorsAreNamed(name: String) throws {
    let tensors =
      ["token_embd.weight", "output_norm.weight"]
      + [
        "attn_norm.weight", "ssm_in.weight", "ssm_conv1d.weight", "ssm_dt.bias", "ssm_a", "ssm_d",
        "ssm_out.weight",
      ].map {
        "blk.1.\($0)"
      } + (name == "mamba" ? ["blk.0.ssm_x.weight", "blk.0.ssm_dt.weight"] : ["blk.0.ssm_norm.weight"])
    for tensor in tensors {
      let found = try error(name) { bytes, _ in
        let range = try #require(Data(bytes).range(of: Data(GGUFBuilder.string(tensor))))
        bytes[range.upperBound - 1] = UInt8(ascii: "X")
      }
      #expect(found?.code == .invalidFile, "\(tensor)")
      #expect(found?.message.contains("'\(tensor)'") == true, "\(tensor): \(found?.message ?? "")")
    }
  }

  @Test(
    arguments: [
      ("mamba", "mamba.ssm.state_size", 8, "blk.0.ssm_x.weight"),
      ("mamba", "mamba.ssm.conv_kernel", 3, "ssm_conv1d"),
      ("mamba", "mamba.ssm.inner_size", 70, "blk.0.ssm"), ("mamba", "mamba.ssm.time_step_rank", 4, "ssm_x"),
      ("mamba", "mamba.embedding_length", 35, "token_embd"), ("mamba", "mamba.block_count", 3, "blk.2."),
      ("mamba2", "mamba2.ssm.time_step_rank", 5, "divide"),
      ("mamba2", "mamba2.ssm.time_step_rank", 12, "blk.0.ssm"),
      ("mamba2", "mamba2.ssm.group_count", 4, "divide"), ("mamba2", "mamba2.ssm.group_count", 2, "blk.0.ssm"),
      ("mamba2", "mamba2.ssm.state_size", 257, "state size"),
      ("mamba2", "mamba2.ssm.conv_kernel", 5, "5 taps"), ("mamba2", "mamba2.block_count", 0, "layers"),
      ("mamba2", "mamba2.ssm.inner_size", 0, "inner size"),
    ] as [(String, String, UInt32, String)])
  func sizesThatDoNotFitAreNamed(name: String, key: String, value: UInt32, part: String) throws {
    let found = try error(name) { bytes, _ in try Self.set(key, to: value, in: &bytes) }
    let message = try #require(found?.message)
    #expect(message.contains(part), "\(key)=\(value): \(message)")
  }

  @Test(arguments: ["mamba", "mamba2"], [1, Float.nan, .infinity, -.infinity])
  func decaysThatGrowStatesAreRefused(name: String, value: Float) throws {
    let found = try error(name) { bytes, file in
      let offset = try file.tensor(named: "blk.1.ssm_a").offset
      bytes.replaceSubrange(offset + 4..<offset + 8, with: GGUFBuilder.little(value.bitPattern))
    }
    #expect(found?.code == .invalidFile)
    #expect(found?.message.contains("'blk.1.ssm_a'") == true)
  }

  @Test func unknownArchitecturesListTheKnown() throws {
    let found = try error("mamba") { bytes, _ in
      let key = Array("general.architecture".utf8)
      let start = try #require(Data(bytes).range(of: Data(key))).upperBound + 12
      bytes.replaceSubrange(start..<start + 5, with: Array("mumba".utf8))
    }
    #expect(found?.code == .unsupported)
    #expect(
      found?.message.contains("'mumba'") == true && found?.message.contains("llama, mamba, mamba2") == true)
    #expect(throws: LongspanError.self) { try MambaModel(path: TestFiles.fixture("tiny/tied.gguf").path) }
  }

  @Test func normsOfFalconMambaAreRefused() throws {
    let found = try error("mamba") { bytes, _ in
      let end = try #require(Data(bytes).range(of: Data("mamba.ssm.dt_b_c_rms".utf8))).upperBound
      bytes[end + 4] = 1
    }
    #expect(found?.code == .unsupported && found?.message.contains("FalconMamba") == true)
  }

  /// Loads a copy of a folder with one file changed and returns the error.
  private func error(
    folder: String, file: String, _ change: (inout String) -> Void
  ) throws -> LongspanError? {
    let copy = FileManager.default.temporaryDirectory.appending(path: "longspan-\(UUID().uuidString)")
    try FileManager.default.copyItem(atPath: MambaFixtures.folder(folder), toPath: copy.path)
    defer { try? FileManager.default.removeItem(at: copy) }
    let path = copy.appending(path: file)
    var text = try String(contentsOf: path, encoding: .utf8)
    change(&text)
    try Data(text.utf8).write(to: path)
    do throws(LongspanError) {
      _ = try LanguageModels.load(path: copy.path)
      return nil
    } catch {
      return error
    }
  }

  @Test(arguments: [
    ("\"model_type\": \"mamba2\"", "\"model_type\": \"bamba\"", "'bamba'"),
    ("\"num_heads\"", "\"heads\"", "'num_heads'"),
    ("\"hidden_size\": 42", "\"hidden_size\": \"42\"", "hidden_size"),
    ("\"hidden_act\": \"silu\"", "\"hidden_act\": \"relu\"", "relu"),
    ("\"n_groups\": 1", "\"n_groups\": 5", "groups"),
    ("\"state_size\": 16", "\"state_size\": 15", "tensor"), ("{", "[", "JSON"),
  ])
  func configurationsThatDoNotFitAreRefused(from: String, to: String, part: String) throws {
    let found = try error(folder: "mamba2", file: "config.json") {
      $0 = $0.replacingOccurrences(of: from, with: to)
    }
    #expect(found?.message.contains(part) == true, "\(found?.message ?? "loaded")")
  }

  @Test(arguments: [
    ("\"type\":\"BPE\"", "\"type\":\"Unigram\"", "Unigram"),
    ("\"type\":\"ByteLevel\"", "\"type\":\"Metaspace\"", "Metaspace"),
    ("\"add_prefix_space\":false", "\"add_prefix_space\":true", "ByteLevel"),
    ("\"normalizer\":null", "\"normalizer\":{\"type\":\"Lowercase\"}", "Lowercase"),
    ("\"ignore_merges\":false", "\"ignore_merges\":true", "ignore_merges"),
    ("[\"t\",\"h\"]", "[\"t\",\"hx\"]", "thx"), ("\"vocab\"", "\"words\"", "vocab"),
    ("\"id\":1,", "\"id\":10000000,", "10000000"), ("\"!\":36", "\"!\":37", "same id"),
  ])
  func tokenizersThatDoNotFitAreRefused(from: String, to: String, part: String) throws {
    let found = try error(folder: "mamba", file: "tokenizer.json") {
      $0 = $0.replacingOccurrences(of: from, with: to)
    }
    let message = try #require(found?.message, "\(from) was not noticed")
    #expect(message.contains(part) || message.contains("merge"), "\(message)")
  }

  /// Whatever bytes of a folder's JSON change, reading it either works or throws.
  @Test func damagedJSONDoesNotTrap() throws {
    var generator = Xoshiro256StarStar(seed: 2)
    func damaged(_ file: String) throws -> [UInt8] {
      var bytes = try TestFiles.bytes(URL(filePath: MambaFixtures.folder("mamba2") + "/" + file))
      for _ in 0...generator.next() % 3 {
        bytes[Int(generator.next() % UInt64(bytes.count))] = UInt8(truncatingIfNeeded: generator.next())
      }
      return bytes
    }
    for _ in 0..<600 {
      let configuration = try damaged("config.json")
      _ = try? JSONFile.decode(HuggingFaceConfiguration.self, configuration.span.bytes, fileName: "")
        .mamba(fileName: "")
      let tokenizer = try damaged("tokenizer.json")
      let file = try? JSONFile.decode(HuggingFaceTokenizer.self, tokenizer.span.bytes, fileName: "")
      _ = try? file?.rule(fileName: "")
      if let file, let vocabulary = try? file.vocabulary(fileName: "") {
        _ = try? BPETokenizer.merges(file.merges, of: vocabulary, key: "", fileName: "")
      }
    }
  }

  @Test func limitsMayBeInfinite() throws {
    for infinity in ["{\"__float__\": \"Infinity\"}", "Infinity"] {
      let json = """
        {"model_type": "mamba2", "num_hidden_layers": 1, "hidden_size": 8, "num_heads": 2, "head_dim": 8, "n_groups": 1,
         "state_size": 4, "time_step_limit": [0.5, \(infinity)], "eos_token_id": [7, 8]}
        """
      let file = try JSONFile.decode(
        HuggingFaceConfiguration.self, Array(json.utf8).span.bytes, fileName: "config.json")
      #expect(try file.mamba(fileName: "config.json").timeStepLimits == 0.5...Float.infinity)
      #expect(file.endOfText == 7)
    }
    let nan = "{\"model_type\": \"mamba2\", \"time_step_limit\": [NaN, 1]}"
    let file = try JSONFile.decode(
      HuggingFaceConfiguration.self, Array(nan.utf8).span.bytes, fileName: "config.json")
    #expect(throws: LongspanError.self) { try file.mamba(fileName: "config.json") }
  }

  @Test(arguments: MambaFixtures.names) func generatesAndPredicts(name: String) throws {
    let model = try MambaFixtures.load(name)
    var generator = try Generator(model, sampling: .greedy, seed: 0, ignoringEnd: true)
    try generator.read([5, 6, 7])
    for _ in 0..<6 { _ = try generator.next() }
    #expect(generator.generated.count == 6)
    #expect(generator.sequence.count == 8 && generator.sequence.slots == 0)
    let bytes = generator.sequence.byteCount
    let tokens = (0..<Int32(60)).map { $0 * 7 % 250 }
    try generator.read(tokens)
    #expect(generator.sequence.byteCount == bytes)
    let report = try PerplexityEvaluation(contextLength: 30, chunk: 11).run(model, tokens: tokens)
    #expect(report.perplexity.isFinite && report.scoredTokens == 58)
    #expect(report.cacheBytes == bytes && report.cacheSlots == 0)
    let run = try ProfiledRun(of: model, prompt: tokens, generating: 2, chunk: 32)
    #expect(run.recording.lostCalls == 0 && run.phases.count == 2)
  }

  @Test func cachePoliciesAreRefused() throws {
    let model = try MambaFixtures.load("mamba")
    for options in [SequenceOptions(cacheType: .f16), SequenceOptions(policy: try LagRelativeCompression())] {
      let error = #expect(throws: LongspanError.self) { try model.makeSequence(options) }
      #expect(error?.code == .unsupported && error?.message.contains("mamba") == true)
    }
  }
}
