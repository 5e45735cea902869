import LongspanKernels
import Testing

@testable import LongspanModels

/// The tokenizer's parts, on small vocabularies.
struct TokenizerTests {
  /// A builder with the 256 bytes, two control tokens, a user-defined token and the given merges.
  private static func builder(merges: [String] = [], pre: String? = "gpt-2") -> GGUFBuilder {
    let printable = Array(0x21...0x7E) + Array(0xA1...0xAC) + Array(0xAE...0xFF)
    var next: UInt32 = 0x100
    var tokens: [String] = []
    for byte in 0..<256 {
      var value = UInt32(byte)
      if !printable.contains(byte) {
        value = next
        next += 1
      }
      tokens.append(Unicode.Scalar(value).map { String(Character($0)) } ?? "")
    }
    tokens += ["<|end|>", "<|end|>|>", "<user é>"]
    let special: [Int32] = [3, 3, 4]
    tokens += merges.map { $0.replacing(" ", with: "") }
    var builder = GGUFBuilder()
    builder.add("tokenizer.ggml.model", "gpt2")
    if let pre { builder.add("tokenizer.ggml.pre", pre) }
    builder.add("tokenizer.ggml.tokens", tokens)
    builder.add(
      "tokenizer.ggml.token_type",
      [Int32](repeating: 1, count: 256) + special + [Int32](repeating: 1, count: merges.count))
    builder.add("tokenizer.ggml.merges", merges)
    return builder
  }

  private static func tokenizer(_ builder: GGUFBuilder) throws -> BPETokenizer {
    try TestFiles.withTemporaryFile(builder.build()) { path in
      try BPETokenizer(GGUFFile(path: path))
    }
  }

  private static func message(_ builder: GGUFBuilder) throws -> String {
    do {
      _ = try tokenizer(builder)
      return "no error"
    } catch let error as LongspanError {
      return "\(error.code.rawValue) \(error.message)"
    }
  }

  // MARK: Pre-tokenizers

  private static let texts = [
    "I'm you'RE 's'T'sun'", "a  12 b\t3", "  x   y  ", "x \n\n  y\r\n", "1234567 ½Ⅷ٣", "!?... (ok)\n\n\n-",
    "\t\ttab\u{A0}nb\u{3000} w", "it'\u{17F}a e\u{301} 中文字", "", "   ", "\n \n", "don''t  '",
  ]

  /// The pieces of ``texts`` that Hugging Face's tokenizers 0.23 gives for the regular expressions in
  /// ``PreTokenizer/Rule``.
  private static let pieces: [PreTokenizer.Rule: [[String]]] = [
    .gpt2: [
      ["I", "'m", " you", "'", "RE", " '", "s", "'", "T", "'s", "un", "'"],
      ["a", " ", " 12", " b", "\t", "3"],
      [" ", " x", "  ", " y", "  "],
      ["x", " \n\n ", " y", "\r\n"],
      ["1234567", " \u{BD}\u{2167}\u{663}"],
      ["!?...", " (", "ok", ")", "\n\n", "\n", "-"],
      ["\t", "\t", "tab", "\u{A0}", "nb", "\u{3000}", " w"],
      ["it", "'", "\u{17F}a", " e", "\u{301}", " \u{4E2D}\u{6587}\u{5B57}"],
      [], ["   "], ["\n \n"],
      ["don", "''", "t", " ", " '"],
    ],
    .smollm: [
      ["I", "'m", " you", "'", "RE", " '", "s", "'", "T", "'s", "un", "'"],
      ["a", "  ", "1", "2", " b", "\t", "3"],
      [" ", " x", "  ", " y", "  "],
      ["x", " \n\n ", " y", "\r\n"],
      ["1", "2", "3", "4", "5", "6", "7", " ", "\u{BD}", "\u{2167}", "\u{663}"],
      ["!?...", " (", "ok", ")", "\n\n", "\n", "-"],
      ["\t", "\t", "tab", "\u{A0}", "nb", "\u{3000}", " w"],
      ["it", "'", "\u{17F}a", " e", "\u{301}", " \u{4E2D}\u{6587}\u{5B57}"],
      [], ["   "], ["\n \n"],
      ["don", "''", "t", " ", " '"],
    ],
    .llama3: [
      ["I", "'m", " you", "'RE", " '", "s", "'T", "'s", "un", "'"],
      ["a", " ", " ", "12", " b", "\t", "3"],
      [" ", " x", "  ", " y", "  "],
      ["x", " \n\n", " ", " y", "\r\n"],
      ["123", "456", "7", " ", "\u{BD}\u{2167}\u{663}"],
      ["!?...", " (", "ok", ")\n\n\n", "-"],
      ["\t", "\ttab", "\u{A0}nb", "\u{3000}", " w"],
      ["it", "'\u{17F}", "a", " e", "\u{301}", " \u{4E2D}\u{6587}\u{5B57}"],
      [], ["   "], ["\n \n"],
      ["don", "''", "t", " ", " '"],
    ],
    .qwen2: [
      ["I", "'m", " you", "'RE", " '", "s", "'T", "'s", "un", "'"],
      ["a", " ", " ", "1", "2", " b", "\t", "3"],
      [" ", " x", "  ", " y", "  "],
      ["x", " \n\n", " ", " y", "\r\n"],
      ["1", "2", "3", "4", "5", "6", "7", " ", "\u{BD}", "\u{2167}", "\u{663}"],
      ["!?...", " (", "ok", ")\n\n\n", "-"],
      ["\t", "\ttab", "\u{A0}nb", "\u{3000}", " w"],
      ["it", "'\u{17F}", "a", " e", "\u{301}", " \u{4E2D}\u{6587}\u{5B57}"],
      [], ["   "], ["\n \n"],
      ["don", "''", "t", " ", " '"],
    ],
  ]

  @Test(arguments: [PreTokenizer.Rule.gpt2, .smollm, .llama3, .qwen2])
  func piecesEqualHuggingFace(rule: PreTokenizer.Rule) throws {
    let expected = try #require(Self.pieces[rule])
    let preTokenizer = PreTokenizer(rule: rule)
    for (text, expected) in zip(Self.texts, expected) {
      let bytes = Array(text.utf8)
      var pieces: [[UInt8]] = []
      var start = 0
      while start < bytes.count {
        let end = preTokenizer.endOfPiece(in: bytes.span, from: start, to: bytes.count)
        pieces.append(Array(bytes[start..<end]))
        start = end
      }
      // Strings would compare equal under canonical equivalence; bytes do not.
      #expect(pieces == expected.map { Array($0.utf8) }, "\(text)")
    }
  }

  // MARK: Merging

  /// Merges by repeated search for the lowest rank, leftmost first: the definition, in quadratic time.
  private static func plainMerge(_ text: String, _ merges: [String]) -> [String] {
    var symbols = text.map(String.init)
    while true {
      let ranked = zip(symbols, symbols.dropFirst()).enumerated().compactMap { offset, pair in
        merges.firstIndex(of: "\(pair.0) \(pair.1)").map { (rank: $0, offset: offset) }
      }
      guard let best = ranked.min(by: { ($0.rank, $0.offset) < ($1.rank, $1.offset) }) else { return symbols }
      symbols.replaceSubrange(
        best.offset...best.offset + 1, with: [symbols[best.offset] + symbols[best.offset + 1]])
    }
  }

  @Test func mergesEqualTheDefinition() throws {
    let merges = ["a b", "b a", "a a", "ab a", "aa aa", "b b", "ba b", "aba b", "aa ab", "bb bb", "c ab"]
    let tokenizer = try Self.tokenizer(Self.builder(merges: merges))
    let seed: UInt64 = 11
    var state = seed
    for _ in 0..<2000 {
      var text = ""
      for _ in 0...Int(state >> 58) {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        text += ["a", "b", "a", "b", "c"][Int(state >> 33) % 5]
      }
      let expected = Self.plainMerge(text, merges).map { Array($0.utf8) }
      let actual = try tokenizer.encode(text).map { try tokenizer.decodeBytes([$0]) }
      #expect(actual == expected, "seed \(seed): \(text)")
    }
  }

  @Test func llama3TakesWholePiecesFirst() throws {
    // No merges lead from the pieces of "abc" to the token: "b c" is done first.
    let merges = ["b c", "a b", "ab c"]
    #expect(try Self.tokenizer(Self.builder(merges: merges)).encode("abc").count == 2)
    #expect(try Self.tokenizer(Self.builder(merges: merges, pre: "llama-bpe")).encode("abc").count == 1)
  }

  // MARK: Special tokens and bytes

  @Test func specialTokensAreParsedOnRequest() throws {
    let tokenizer = try Self.tokenizer(Self.builder())
    #expect(tokenizer.encode("a<|end|>b", parsingSpecialTokens: true) == [97, 256, 98])
    #expect(tokenizer.encode("<|end|>|><|end|>", parsingSpecialTokens: true) == [257, 256])
    #expect(tokenizer.encode("<|end|", parsingSpecialTokens: true).count == 6)
    #expect(tokenizer.encode("<|end|>").count == 7)
    #expect(tokenizer.encode("<user é>") == [258])
    #expect(tokenizer.encode("") == [])
    #expect(try tokenizer.decode([97, 256, 98]) == "a<|end|>b")
    #expect(try tokenizer.decode([97, 256, 258, 98], skippingControlTokens: true) == "a<user é>b")
  }

  @Test func bytesThatAreNotUTF8AreReplaced() throws {
    let tokenizer = try Self.tokenizer(Self.builder())
    // As Python's b"...".decode(errors="replace"): one U+FFFD per maximal ill-formed part.
    let cases: [([UInt8], String)] = [
      ([0x61, 0xFF, 0x62], "a\u{FFFD}b"), ([0xE2, 0x82], "\u{FFFD}"), ([0xE2, 0x82, 0x41], "\u{FFFD}A"),
      ([0xC0, 0xAF], "\u{FFFD}\u{FFFD}"), ([0xED, 0xA0, 0x80], "\u{FFFD}\u{FFFD}\u{FFFD}"),
      ([0xF0, 0x9F, 0x98], "\u{FFFD}"), ([0xF4, 0x90, 0x80, 0x80], "\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}"),
    ]
    for (bytes, text) in cases {
      #expect(tokenizer.encode(bytes: bytes.span) == tokenizer.encode(text), "\(bytes)")
    }
  }

  @Test func everyByteComesBack() throws {
    let tokenizer = try Self.tokenizer(Self.builder())
    #expect(try tokenizer.decodeBytes((0..<256).map { Int32($0) }) == [UInt8](0...255))
  }

  @Test(arguments: [-1, 259, Int32.max])
  func tokensOutsideTheVocabularyAreRefused(token: Int32) throws {
    let tokenizer = try Self.tokenizer(Self.builder())
    #expect(
      throws: LongspanError(.invalidArgument, "token \(token) is not in the vocabulary of 259 tokens")
    ) { try tokenizer.decode([token]) }
  }

  // MARK: Streaming

  /// What a stream hands out is the whole text, and no piece of it ends inside a character.
  @Test func streamsHoldBackIncompleteCharacters() throws {
    let tokenizer = try Self.tokenizer(Self.builder())
    var stream = TokenStreamDecoder(tokenizer)
    let pieces = try Array("é😀x".utf8).map { try stream.append(Int32($0)) }
    #expect(pieces == ["", "é", "", "", "", "😀", "x"])
    #expect(stream.finish() == "")

    let seed: UInt64 = 5
    var state = seed
    let alphabet: [UInt8] = [
      0x41, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC1, 0xC3, 0xE0, 0xE2, 0xED, 0xF0, 0xF4, 0xF5, 0xFF,
    ]
    for _ in 0..<5000 {
      var bytes: [UInt8] = []
      for _ in 0..<8 {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        bytes.append(alphabet[Int(state >> 60)])
      }
      var stream = TokenStreamDecoder(tokenizer)
      var text = ""
      for byte in bytes { text += try stream.append(Int32(byte)) }
      text += stream.finish()
      #expect(
        Array(text.utf8) == Array(String(decoding: bytes, as: UTF8.self).utf8), "seed \(seed): \(bytes)")
    }
  }

  // MARK: Faults

  @Test func faultsAreNamed() throws {
    var wordPiece = GGUFBuilder()
    wordPiece.add("tokenizer.ggml.model", "bert")
    #expect(
      try Self.message(wordPiece)
        == "1030 model.gguf: tokenizer 'bert' is not supported; supported is gpt2 (byte-level BPE)")
    let unknown = try Self.message(Self.builder(pre: "tekken"))
    #expect(unknown.hasPrefix("1030 model.gguf: pre-tokenizer 'tekken' is not supported; "))
    #expect(unknown.contains("; supported are default, "))
    #expect(unknown.contains("smollm"))
    #expect(try Self.message(Self.builder(pre: nil)) == "no error")

    for merge in ["ab", "a b c", "", "a "] {
      let message = try Self.message(Self.builder(merges: ["a b", merge]))
      #expect(message.hasPrefix("1020 model.gguf: element 1 of 'tokenizer.ggml.merges' "), "\(message)")
    }
    var lacking = Self.builder()
    lacking.add("tokenizer.ggml.bos_token_id", 259)
    #expect(
      try Self.message(lacking)
        == "1020 model.gguf: 'tokenizer.ggml.bos_token_id' is 259, but there are 259 tokens")

    var mismatch = GGUFBuilder()
    mismatch.add("tokenizer.ggml.model", "gpt2")
    mismatch.add("tokenizer.ggml.tokens", ["a", "b"])
    mismatch.add("tokenizer.ggml.token_type", [1])
    #expect(
      try Self.message(mismatch)
        == "1020 model.gguf: 'tokenizer.ggml.token_type' has 1 elements for 2 tokens")
  }

  @Test func missingMergesAreNamed() throws {
    let file = try GGUFFile(path: TestFiles.fixture("tiny/no-merges.gguf").path)
    do throws(LongspanError) {
      _ = try BPETokenizer(file)
      Issue.record("no error")
    } catch {
      #expect(
        error.message
          == "no-merges.gguf: has no metadata key 'tokenizer.ggml.merges' (an array of strings is expected)")
    }
  }

  private struct Tiny: Decodable {
    struct Case: Decodable {
      let text: String
      let ids: [Int32]
    }
    let tokenizer: [Case]
  }

  @Test(arguments: ["tied.gguf", "tied-v2.gguf", "untied.gguf"])
  func tinyModelsEqualHuggingFace(name: String) throws {
    let cases = try TestFiles.json(Tiny.self, "tiny/tiny.json").tokenizer
    let tokenizer = try BPETokenizer(GGUFFile(path: TestFiles.fixture("tiny/\(name)").path))
    #expect(!cases.isEmpty)
    for example in cases {
      #expect(tokenizer.encode(example.text, parsingSpecialTokens: true) == example.ids, "\(example.text)")
      #expect(try tokenizer.decode(example.ids) == example.text)
    }
  }
}
