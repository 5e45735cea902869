import LongspanKernels

/// What a `config.json` of transformers says of a model. Keys that are left out have the defaults of transformers.
struct HuggingFaceConfiguration: Decodable {
  let modelType: String?
  private let layers: Int?
  private let hidden: Int?
  private let intermediate: Int?
  private let expand: Double?
  private let stateSize: Int?
  private let convolutionWidth: Int?
  private let timeStepRank: Rank?
  private let heads: Int?
  private let headDimension: Int?
  private let groups: Int?
  private let epsilon: Double?
  private let timeStepLimits: [Number]?
  private let activation: String?
  private let trainedContext: Int?
  private let beginning: TokenIDs?
  private let end: TokenIDs?
  /// Whether the output product uses the embedding table.
  let isTied: Bool?

  private enum CodingKeys: String, CodingKey {
    case modelType = "model_type"
    case layers = "num_hidden_layers"
    case hidden = "hidden_size"
    case intermediate = "intermediate_size"
    case expand
    case stateSize = "state_size"
    case convolutionWidth = "conv_kernel"
    case timeStepRank = "time_step_rank"
    case heads = "num_heads"
    case headDimension = "head_dim"
    case groups = "n_groups"
    case epsilon = "layer_norm_epsilon"
    case timeStepLimits = "time_step_limit"
    case activation = "hidden_act"
    case trainedContext = "max_position_embeddings"
    case beginning = "bos_token_id"
    case end = "eos_token_id"
    case isTied = "tie_word_embeddings"
  }

  /// A rank, or "auto".
  private struct Rank: Decodable {
    let value: Int?

    init(from decoder: any Decoder) throws {
      let container = try decoder.singleValueContainer()
      value = try? container.decode(Int.self)
      if value == nil { _ = try container.decode(String.self) }
    }
  }

  /// A number, or `{"__float__": "Infinity"}`, as transformers writes those that JSON lacks.
  private struct Number: Decodable {
    let value: Float

    private struct Tagged: Decodable {
      let name: String
      private enum CodingKeys: String, CodingKey { case name = "__float__" }
    }

    init(from decoder: any Decoder) throws {
      let container = try decoder.singleValueContainer()
      if let number = try? container.decode(Float.self) {
        value = number
      } else {
        value = try container.decode(Tagged.self).name == "Infinity" ? .infinity : .nan
      }
    }
  }

  /// An id, or a list of them of which the first counts.
  private struct TokenIDs: Decodable {
    let first: Int?

    init(from decoder: any Decoder) throws {
      let container = try decoder.singleValueContainer()
      if let id = try? container.decode(Int.self) {
        first = id
      } else {
        first = try container.decode([Int].self).first
      }
    }
  }

  var beginningOfText: Int? { beginning?.first }
  var endOfText: Int? { end?.first }

  /// The shape of a Mamba or Mamba-2 model.
  ///
  /// - Parameter fileName: begins the error message.
  func mamba(fileName: String) throws(LongspanError) -> MambaConfiguration {
    func required(_ value: Int?, _ key: CodingKeys) throws(LongspanError) -> Int {
      guard let value else { throw LongspanError(.invalidFile, "\(fileName): '\(key.rawValue)' is missing") }
      return value
    }
    let architectures = LanguageModels.folderArchitectures
    guard let modelType, architectures.contains(modelType) else {
      throw LongspanError(
        .unsupported,
        "\(fileName): architecture '\(modelType ?? "")' is not supported; "
          + "\(architectures.joined(separator: ", ")) are")
    }
    guard activation ?? "silu" == "silu" else {
      throw LongspanError(
        .unsupported, "\(fileName): activation '\(activation ?? "")' is not supported; silu is")
    }
    let hidden = try required(hidden, .hidden)
    let mixer: MambaConfiguration.Mixer
    let inner: Int
    if modelType == "mamba" {
      inner = intermediate ?? Int(exactly: (Double(hidden) * (expand ?? 2)).rounded(.down)) ?? 0
      mixer = .selective(timeStepRank: timeStepRank?.value ?? hidden / 16 + (hidden % 16 > 0 ? 1 : 0))
    } else {
      let heads = try required(heads, .heads)
      let (product, overflow) = heads.multipliedReportingOverflow(
        by: try required(headDimension, .headDimension))
      inner = overflow ? 0 : product
      mixer = .dual(heads: heads, groups: try required(groups, .groups))
    }
    let limits = timeStepLimits ?? []
    return try MambaConfiguration(
      mixer, layers: required(layers, .layers), hidden: hidden, inner: inner,
      stateSize: required(stateSize, .stateSize), convolutionWidth: convolutionWidth ?? 4,
      normEpsilon: Float(epsilon ?? 1e-5),
      timeStepLimits: limits.count == 2 ? (limits[0].value, limits[1].value) : (0, .infinity),
      trainedContext: trainedContext ?? 1 << 20, fileName: fileName)
  }
}
