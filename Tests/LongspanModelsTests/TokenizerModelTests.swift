import Foundation
import Testing

@testable import LongspanModels

/// Token ids of the real model against those of Hugging Face's tokenizer (Tests/Oracles/make_tokenizer.py).
@Suite(.enabled(if: TestFiles.runsModelTests, Comment(rawValue: TestFiles.modelTestsComment)))
struct TokenizerModelTests {
  private struct Prompts: Decodable {
    struct Prompt: Decodable {
      let name: String
      let text: String
      let ids: [Int32]
    }
    let prompts: [Prompt]
  }

  private struct UnicodeIDs: Decodable {
    let missingBytes: [UInt8]
    let idsParsingSpecial: [Int32]
    let idsPlain: [Int32]
  }

  private static let tokenizer = Result { try BPETokenizer(GGUFFile(path: TestFiles.modelPath)) }

  @Test func promptsEqualHuggingFace() throws {
    let tokenizer = try Self.tokenizer.get()
    let prompts = try TestFiles.json(Prompts.self, "tokenizer/prompts.json").prompts
    #expect(prompts.count == 5)
    for prompt in prompts {
      #expect(tokenizer.encode(prompt.text, parsingSpecialTokens: true) == prompt.ids, "\(prompt.name)")
      #expect(try tokenizer.decode(prompt.ids) == prompt.text, "\(prompt.name)")
    }
  }

  @Test func novelEqualsHuggingFace() throws {
    let tokenizer = try Self.tokenizer.get()
    let text = try TestFiles.bytes(TestFiles.novel)
    let stored = try TestFiles.bytes(TestFiles.fixture("tokenizer/persuasion.u16"))
    let expected = stride(from: 0, to: stored.count, by: 2).map {
      Int32(stored[$0]) | Int32(stored[$0 + 1]) << 8
    }
    let clock = ContinuousClock()
    var tokens: [Int32] = []
    let duration = clock.measure { tokens = tokenizer.encode(bytes: text.span, parsingSpecialTokens: true) }
    #expect(tokens == expected)
    #expect(tokens.count == 107_749)
    #expect(try tokenizer.decodeBytes(tokens) == text)
    // An unoptimized build on a busy machine needs a few seconds; a slip to quadratic time needs minutes.
    #expect(duration < .seconds(30))
  }

  @Test func unicodeEqualsHuggingFace() throws {
    let tokenizer = try Self.tokenizer.get()
    let text = try TestFiles.bytes(TestFiles.fixture("tokenizer/unicode.txt"))
    let expected = try TestFiles.json(UnicodeIDs.self, "tokenizer/unicode.json")
    #expect(tokenizer.encode(bytes: text.span, parsingSpecialTokens: true) == expected.idsParsingSpecial)
    #expect(tokenizer.encode(bytes: text.span, parsingSpecialTokens: false) == expected.idsPlain)
    let missing = (UInt8.min...UInt8.max).filter { tokenizer.vocabulary.token(byte: $0) == nil }
    #expect(missing == expected.missingBytes)
  }

  @Test func specialTokensAreTheFilesOwn() throws {
    let tokenizer = try Self.tokenizer.get()
    #expect(tokenizer.tokenCount == 49_152)
    #expect(tokenizer.beginningOfText == 1)
    #expect(tokenizer.endOfText == 2)
    #expect(tokenizer.endOfTurn == nil)
    #expect(tokenizer.unknown == 0)
    #expect(tokenizer.padding == 2)
    #expect(!tokenizer.addsBeginningOfText)
  }

  /// The metadata holds 98,000 strings, so a slow reader shows here.
  @Test func opensFast() throws {
    let clock = ContinuousClock()
    let duration = try clock.measure {
      let file = try GGUFFile(path: TestFiles.modelPath)
      #expect(file.tensors.count == 272)
      #expect(try file.strings("tokenizer.ggml.merges").count == 48_900)
    }
    #expect(duration < .seconds(5))
  }

  @Test(arguments: ["a", " ", "\n", "é", "'", "\t x", "1", "<", "<|im_end|>", "ab"])
  func longRunsTakeLinearTime(unit: String) throws {
    let tokenizer = try Self.tokenizer.get()
    let count = 200_000 / unit.utf8.count
    let text = String(repeating: unit, count: count)
    let clock = ContinuousClock()
    var tokens: [Int32] = []
    let duration = clock.measure { tokens = tokenizer.encode(text, parsingSpecialTokens: true) }
    #expect(try tokenizer.decode(tokens) == text)
    #expect(duration < .seconds(30))
  }
}
