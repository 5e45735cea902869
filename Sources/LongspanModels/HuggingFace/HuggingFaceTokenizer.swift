import LongspanKernels

/// The parts of a `tokenizer.json` that a byte-level BPE tokenizer is made of.
struct HuggingFaceTokenizer: Decodable {
  private struct AddedToken: Decodable {
    let id: Int
    let content: String
    let special: Bool
  }

  /// A step of normalizing or splitting text.
  private struct Step: Decodable {
    let type: String
    let steps: [Step]?
    let individualDigits: Bool?
    let addsPrefixSpace: Bool?
    let usesRegex: Bool?

    private enum CodingKeys: String, CodingKey {
      case type
      case steps = "pretokenizers"
      case individualDigits = "individual_digits"
      case addsPrefixSpace = "add_prefix_space"
      case usesRegex = "use_regex"
    }

    var isByteLevel: Bool { type == "ByteLevel" && addsPrefixSpace == false && usesRegex != false }
    var setsDigitsApart: Bool { type == "Digits" && individualDigits == true }
  }

  private struct Model: Decodable {
    let type: String?
    let vocab: [String: Int]
    let merges: [Merge]
    let ignoreMerges: Bool?
    let byteFallback: Bool?

    private enum CodingKeys: String, CodingKey {
      case type, vocab, merges
      case ignoreMerges = "ignore_merges"
      case byteFallback = "byte_fallback"
    }
  }

  /// "a b", as older files write it, or ["a", "b"].
  private struct Merge: Decodable {
    let line: String

    init(from decoder: any Decoder) throws {
      let value = try decoder.singleValueContainer()
      if let line = try? value.decode(String.self) {
        self.line = line
      } else {
        line = try value.decode([String].self).joined(separator: " ")
      }
    }
  }

  private struct ModelType: Decodable {
    struct Model: Decodable { let type: String? }
    let model: Model
  }

  private let addedTokens: [AddedToken]
  private let normalizer: Step?
  private let preTokenizer: Step?
  private let model: Model

  private enum CodingKeys: String, CodingKey {
    case normalizer, model
    case addedTokens = "added_tokens"
    case preTokenizer = "pre_tokenizer"
  }

  /// Reads a file.
  ///
  /// - Throws: ``/LongspanKernels/LongspanError`` with code `unsupported` if it is no byte-level BPE tokenizer with a
  ///   known way to split text.
  static func read(_ path: String) throws(LongspanError) -> HuggingFaceTokenizer {
    // other models have other parts
    let type = try JSONFile.decode(ModelType.self, path: path).model.type ?? "BPE"
    guard type == "BPE" else {
      throw LongspanError(
        .unsupported, "\(path): tokenizer '\(type)' is not supported; supported is BPE (byte-level)")
    }
    return try JSONFile.decode(HuggingFaceTokenizer.self, path: path)
  }

  /// The rule that splits text, and refuses what encoding would not follow.
  func rule(fileName: String) throws(LongspanError) -> PreTokenizer.Rule {
    guard model.ignoreMerges != true, model.byteFallback != true else {
      throw LongspanError(
        .unsupported, "\(fileName): BPE with 'ignore_merges' or 'byte_fallback' is not supported")
    }
    // NFC is left to the caller, as for Qwen2
    guard normalizer == nil || normalizer?.type == "NFC" else {
      throw LongspanError(
        .unsupported, "\(fileName): normalizer '\(normalizer?.type ?? "")' is not supported; NFC is")
    }
    let steps = preTokenizer.map { $0.type == "Sequence" ? $0.steps ?? [] : [$0] } ?? []
    if steps.count == 1, steps[0].isByteLevel { return .gpt2 }
    if steps.count == 2, steps[0].setsDigitsApart, steps[1].isByteLevel { return .smollm }
    throw LongspanError(
      .unsupported,
      "\(fileName): pre-tokenizer '\(steps.map(\.type).joined(separator: ", "))' is not supported; ByteLevel without a "
        + "prefix space is, alone or after Digits with individual digits")
  }

  /// The vocabulary, in the order of the ids.
  func vocabulary(fileName: String) throws(LongspanError) -> Vocabulary {
    let most = model.vocab.count + addedTokens.count + Self.mostHoles
    var spellings: [String] = []
    var kinds: [Int] = []
    func set(_ spelling: String, _ id: Int, _ kind: Int) throws(LongspanError) {
      guard id >= 0, id < most else {
        throw LongspanError(.invalidFile, "\(fileName): token '\(spelling)' has the id \(id)")
      }
      while spellings.count <= id {
        // an id that nothing is spelled with is a control token without a spelling
        spellings.append("")
        kinds.append(Vocabulary.Kind.control)
      }
      guard kind != Vocabulary.Kind.normal || spellings[id].isEmpty else {
        throw LongspanError(
          .invalidFile, "\(fileName): tokens '\(spellings[id])' and '\(spelling)' have the same id \(id)")
      }
      spellings[id] = spelling
      kinds[id] = kind
    }
    for (spelling, id) in model.vocab { try set(spelling, id, Vocabulary.Kind.normal) }
    for token in addedTokens {
      try set(token.content, token.id, token.special ? Vocabulary.Kind.control : Vocabulary.Kind.userDefined)
    }
    return try Vocabulary(spellings, kinds: kinds, fileName: fileName)
  }

  /// Ids without a token that a vocabulary may have.
  private static let mostHoles = 1 << 16

  /// The merges, "a b" each.
  var merges: [String] { model.merges.map(\.line) }
}

extension BPETokenizer {
  /// Reads the tokenizer of a model folder, `tokenizer.json`.
  ///
  /// - Parameters:
  ///   - beginning: the token that begins a text, as the model's configuration says.
  ///   - end: the token that ends one.
  init(folder: String, beginning: Int?, end: Int?) throws(LongspanError) {
    let path = "\(folder)/tokenizer.json"
    let file = try HuggingFaceTokenizer.read(path)
    let vocabulary = try file.vocabulary(fileName: path)
    func token(_ id: Int?) -> Int32? { id.flatMap { 0..<vocabulary.count ~= $0 ? Int32($0) : nil } }
    self.init(
      vocabulary, merges: try Self.merges(file.merges, of: vocabulary, key: "model.merges", fileName: path),
      PreTokenizer(rule: try file.rule(fileName: path)), beginning: token(beginning), end: token(end))
  }
}
