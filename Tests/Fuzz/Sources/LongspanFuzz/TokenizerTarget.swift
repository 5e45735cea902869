import LongspanKernels
import LongspanModels

/// Makes a tokenizer of what libFuzzer made, and encodes and decodes the rest with it.
enum TokenizerTarget {
  private static let file = MemoryFile()
  private static let preTokenizers = [
    "default", "gpt-2", "smollm", "llama-bpe", "llama3", "qwen2", "bert", "",
  ]

  static func run(_ bytes: [UInt8]) {
    var input = FuzzInput(bytes)
    var writer = MetadataWriter()
    let spellsAll = draw(&input, into: &writer)
    file.write(writer.file(), zeros: 64)
    let text = input.rest()
    do throws(LongspanError) {
      let tokenizer = try BPETokenizer(GGUFFile(path: file.path))
      let valid = String(decoding: text, as: UTF8.self)
      roundTrip(valid, tokenizer, spellsAll: spellsAll)
      if tokenizer.encode(bytes: text.span) != tokenizer.encode(valid) {
        fail("bytes and text have other tokens")
      }
      decode(text, tokenizer)
    } catch {
      ModelRun.check(error)
    }
  }

  /// Encodes and decodes, and checks what every tokenizer promises. `spellsAll`: whether there is a token for each byte.
  static func roundTrip(_ text: String, _ tokenizer: BPETokenizer, spellsAll: Bool) {
    for parsing in [false, true] {
      let tokens = tokenizer.encode(text, parsingSpecialTokens: parsing)
      do throws(LongspanError) {
        let decoded = try tokenizer.decode(tokens)
        if spellsAll, decoded.utf8.elementsEqual(text.utf8) == false { fail("'\(text)' became '\(decoded)'") }
        var stream = TokenStreamDecoder(tokenizer)
        var streamed = ""
        for token in tokens { streamed += try stream.append(token) }
        streamed += stream.finish()
        if !streamed.utf8.elementsEqual(decoded.utf8) { fail("a stream decodes '\(text)' otherwise") }
        _ = try tokenizer.decode(tokens, skippingControlTokens: true)
      } catch {
        fail("a token that encoding made cannot be decoded: \(error.message)")
      }
    }
  }

  /// Decodes numbers that need not be tokens.
  private static func decode(_ bytes: [UInt8], _ tokenizer: BPETokenizer) {
    var stream = TokenStreamDecoder(tokenizer)
    for (index, byte) in bytes.enumerated() {
      let token = index % 7 == 6 ? Int32(bitPattern: UInt32(byte) << 24) : Int32(byte)
      let inside = token >= 0 && token < tokenizer.tokenCount
      if ((try? tokenizer.decodeBytes([token])) != nil) != inside {
        fail("token \(token) is there, or is not")
      }
      _ = try? stream.append(token)
    }
    _ = stream.finish()
  }

  // MARK: Drawing a tokenizer

  /// Writes the metadata of a tokenizer. True if it is a good one with a token for each byte.
  private static func draw(_ input: inout FuzzInput, into writer: inout MetadataWriter) -> Bool {
    var tokens: [String] = []
    var types: [Int32] = []
    let all = !input.once(in: 4)
    if all { tokens = (0...255).map { ByteSpelling.character(UInt8($0)) } }
    types = tokens.map { _ in 1 }
    var merges: [String] = []
    for _ in 0..<input.number(below: 40) {
      switch input.number(below: 4) {
      case 0 where tokens.count > 1, 1 where tokens.count > 1:
        let left = tokens[input.number(below: tokens.count)]
        let right = tokens[input.number(below: tokens.count)]
        merges.append("\(left) \(right)")
        tokens.append(left + right)
        types.append(1)
      case 2:
        tokens.append(String(decoding: input.take(1 + input.number(below: 8)), as: UTF8.self))
        types.append([1, 3, 4, 2, 5, 6, 0, -1][input.number(below: 8)])
      default:
        tokens.append(input.take(1 + input.number(below: 6)).map(ByteSpelling.character).joined())
        types.append(input.once(in: 4) ? 4 : 1)
      }
    }
    if input.once(in: 16) {
      merges.append(String(decoding: input.take(input.number(below: 12)), as: UTF8.self))
    }
    writer.add("tokenizer.ggml.model", input.once(in: 32) ? "llama" : "gpt2")
    writer.add("tokenizer.ggml.pre", preTokenizers[input.number(below: preTokenizers.count)])
    writer.add("tokenizer.ggml.tokens", tokens)
    if input.once(in: 16) { types.removeLast(min(types.count, 1)) }
    if !input.once(in: 8) { writer.add("tokenizer.ggml.token_type", types) }
    writer.add("tokenizer.ggml.merges", merges)
    for name in ["bos", "eos", "eot", "unknown", "padding"] where input.once(in: 4) {
      let id =
        input.once(in: 8) ? Int32(bitPattern: UInt32(input.number(below: 65536)) << 16) : Int32(input.byte())
      writer.add("tokenizer.ggml.\(name)_token_id", id)
    }
    return all
  }
}
