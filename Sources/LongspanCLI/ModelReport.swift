import LongspanKernels
import LongspanModels

/// What `longspan info` says of a model. Sizes that its architecture does not have are left out.
struct ModelReport: Encodable {
  let name: String
  let architecture: String
  let parameters: Int
  let layers: Int
  let hidden: Int
  let vocabulary: Int
  let trainedContext: Int
  let fileBytes: Int
  let weightBytes: Int
  let context: Int
  let residentBytes: Int?
  let peakResidentBytes: Int?

  var feedForward: Int?
  var heads: Int?
  var keyValueHeads: Int?
  var headDimension: Int?
  var cacheBytesPerToken: Int?
  var cacheBytes: Int?

  var inner: Int?
  var stateSize: Int?
  var groups: Int?
  var timeStepRank: Int?
  var convolutionWidth: Int?
  var stateBytes: Int?

  init(_ model: any LanguageModel, context: Int?) throws(LongspanError) {
    name = model.name
    architecture = model.architecture
    parameters = model.parameterCount
    layers = model.layerCount
    hidden = model.hiddenSize
    vocabulary = model.vocabularySize
    trainedContext = model.trainedContext
    fileBytes = model.fileByteCount
    weightBytes = model.weightByteCount
    self.context = context ?? model.trainedContext
    residentBytes = SystemMemory.residentBytes
    peakResidentBytes = SystemMemory.peakResidentBytes
    guard self.context > 0 else {
      throw LongspanError(.invalidArgument, "context: \(self.context) tokens are out of range")
    }
    if let llama = model as? LlamaModel { try describe(llama) }
    if let mamba = model as? MambaModel { try describe(mamba) }
  }

  private mutating func describe(_ model: LlamaModel) throws(LongspanError) {
    let shape = model.configuration
    feedForward = shape.feedForward
    heads = shape.heads
    keyValueHeads = shape.keyValueHeads
    headDimension = shape.headDimension
    let perToken = try model.makeCache(capacity: 1).shape.bytesPerToken
    let (bytes, overflow) = perToken.multipliedReportingOverflow(by: context)
    guard !overflow else {
      throw LongspanError(.invalidArgument, "context: \(context) tokens are out of range")
    }
    cacheBytesPerToken = perToken
    cacheBytes = bytes
  }

  private mutating func describe(_ model: MambaModel) throws(LongspanError) {
    let shape = model.configuration
    inner = shape.inner
    stateSize = shape.stateSize
    convolutionWidth = shape.convolutionWidth
    switch shape.mixer {
    case .selective(let rank):
      timeStepRank = rank
    case .dual(let heads, let groups):
      self.heads = heads
      self.groups = groups
      headDimension = shape.inner / heads
    }
    stateBytes = try model.makeState().byteCount
  }

  var rows: [(String, String)] {
    [
      ("model", "\(name) (\(architecture), \(parameters) parameters)"),
      ("shape", shape),
      ("trained context", "\(trainedContext) tokens"),
      ("file", SystemMemory.describe(fileBytes)),
      ("weights in memory", SystemMemory.describe(weightBytes)),
      kept,
      (
        "memory in use",
        (residentBytes.map(SystemMemory.describe) ?? "unknown")
          + (peakResidentBytes.map { ", \(SystemMemory.describe($0)) at most" } ?? "")
      ),
    ]
  }

  private var shape: String {
    var parts = ["\(layers) layers", "hidden \(hidden)"]
    func add(_ what: String, _ value: Int?) {
      if let value { parts.append("\(what) \(value)") }
    }
    add("feed-forward", feedForward)
    add("inner", inner)
    add("state", stateSize)
    if let heads, let keyValueHeads, let headDimension {
      parts.append("\(heads) query and \(keyValueHeads) key/value heads of \(headDimension)")
    } else if let heads, let groups, let headDimension {
      parts.append("\(heads) heads of \(headDimension) in \(groups) group\(groups == 1 ? "" : "s")")
    }
    add("time step rank", timeStepRank)
    add("convolution of", convolutionWidth)
    return (parts + ["vocabulary \(vocabulary)"]).joined(separator: ", ")
  }

  private var kept: (String, String) {
    if let stateBytes { return ("state, f32", "\(SystemMemory.describe(stateBytes)), whatever the context") }
    return (
      "cache, f32",
      "\(SystemMemory.describe(cacheBytesPerToken ?? 0)) a token, \(SystemMemory.describe(cacheBytes ?? 0)) for \(context)"
    )
  }
}
