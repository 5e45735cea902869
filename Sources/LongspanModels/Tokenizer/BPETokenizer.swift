import LongspanKernels

/// A byte-level byte-pair tokenizer (Sennrich et al. 2016; byte level: Radford et al. 2019, GPT-2), read from
/// the vocabulary, merges and pre-tokenizer name in a GGUF file.
///
/// Text becomes tokens in three steps: the spellings of special tokens are cut out; what is between them is
/// split into pieces by the pre-tokenizer (words, numbers, punctuation, white space); the bytes of each piece
/// are merged pair by pair in the order of the file's merge list. The ids equal those of Hugging Face's
/// `tokenizers` for the same vocabulary. There is one exception: Qwen2's normalization to NFC is left to the
/// caller (as in llama.cpp), which matters only for text with decomposed characters.
///
/// Time is O(n log n) in the length of the longest piece and linear in the length of the text.
public struct BPETokenizer: Sendable {
  /// The token that begins a text, if the file names one.
  public let beginningOfText: Int32?
  /// The token that ends a text, if the file names one.
  public let endOfText: Int32?
  /// The token that ends a turn of a chat where it differs from ``endOfText``, if the file names one.
  public let endOfTurn: Int32?
  /// The token for what the vocabulary cannot spell, if the file names one. Encoding never produces it.
  public let unknown: Int32?
  /// The token that fills up batches, if the file names one.
  public let padding: Int32?
  /// Whether the model expects ``beginningOfText`` before each text. ``encode(_:parsingSpecialTokens:)`` does
  /// not add it.
  public let addsBeginningOfText: Bool

  let vocabulary: Vocabulary
  let merges: MergeTable
  let preTokenizer: PreTokenizer

  /// Reads the tokenizer of a model file.
  ///
  /// - Throws: ``/LongspanKernels/LongspanError`` with code `unsupported` if the file's tokenizer or pre-tokenizer is
  ///   of another kind (the message names it), and `invalidFile` if a part is missing or contradicts another.
  public init(_ file: borrowing GGUFFile) throws(LongspanError) {
    let model = try file.string("tokenizer.ggml.model")
    guard model == "gpt2" else {
      throw LongspanError(
        .unsupported,
        "\(file.name): tokenizer '\(model)' is not supported; supported is gpt2 (byte-level BPE)")
    }
    self.preTokenizer = try PreTokenizer(
      named: file.string("tokenizer.ggml.pre", default: "default"), fileName: file.name)
    self.vocabulary = try Vocabulary(file)
    let merges = "tokenizer.ggml.merges"
    self.merges = try Self.merges(
      file.strings(merges), of: vocabulary, key: merges, fileName: file.name)
    self.beginningOfText = try Self.token("bos", file, vocabulary)
    self.endOfText = try Self.token("eos", file, vocabulary)
    self.endOfTurn = try Self.token("eot", file, vocabulary)
    self.unknown = try Self.token("unknown", file, vocabulary)
    self.padding = try Self.token("padding", file, vocabulary)
    self.addsBeginningOfText = try file.bool(
      "tokenizer.ggml.add_bos_token", default: preTokenizer.rule == .llama3)
  }

  /// A tokenizer whose parts come from elsewhere.
  init(
    _ vocabulary: Vocabulary, merges: MergeTable, _ preTokenizer: PreTokenizer, beginning: Int32?, end: Int32?
  ) {
    self.vocabulary = vocabulary
    self.merges = merges
    self.preTokenizer = preTokenizer
    beginningOfText = beginning
    endOfText = end
    endOfTurn = nil
    unknown = nil
    padding = nil
    addsBeginningOfText = false
  }

  /// The number of tokens in the vocabulary.
  public var tokenCount: Int { vocabulary.count }

  /// The table of a list of merges, "a b" each.
  ///
  /// - Parameter key: what the file calls the list.
  static func merges(
    _ lines: [String], of vocabulary: Vocabulary, key: String, fileName: String
  ) throws(LongspanError) -> MergeTable {
    var table = MergeTable(minimumCapacity: lines.count)
    for (index, line) in lines.enumerated() {
      // The byte alphabet has no blank, so the blank is the separator.
      let parts = line.utf8.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false)
      guard parts.count == 2, let left = ByteAlphabet.decode(Substring(parts[0])),
        let right = ByteAlphabet.decode(Substring(parts[1])), let rank = Int32(exactly: index)
      else {
        throw LongspanError(.invalidFile, "\(fileName): element \(index) of '\(key)' is no merge: '\(line)'")
      }
      guard let leftToken = vocabulary.token(spelling: left),
        let rightToken = vocabulary.token(spelling: right),
        let token = vocabulary.token(spelling: left + right)
      else {
        throw LongspanError(
          .invalidFile,
          "\(fileName): element \(index) of '\(key)' ('\(line)') uses a token that the vocabulary lacks")
      }
      table.add(left: leftToken, right: rightToken, merge: .init(rank: rank, token: token))
    }
    return table
  }

  private static func token(
    _ name: String, _ file: borrowing GGUFFile, _ vocabulary: Vocabulary
  ) throws(LongspanError) -> Int32? {
    let key = "tokenizer.ggml.\(name)_token_id"
    guard file.metadata[key] != nil else { return nil }
    let value = try file.int(key)
    guard value >= 0, value < vocabulary.count, let token = Int32(exactly: value) else {
      throw LongspanError(
        .invalidFile, "\(file.name): '\(key)' is \(value), but there are \(vocabulary.count) tokens")
    }
    return token
  }
}
