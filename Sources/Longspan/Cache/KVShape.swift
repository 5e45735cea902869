import LongspanKernels

/// What the keys and values of a model look like.
public struct KVShape: Sendable, Equatable {
  /// Layers of the cache.
  public let layers: Int
  /// The model's number of the first of the layers: 0, but in a cache of some of a model's layers.
  public let firstLayer: Int
  /// Key/value heads Hk.
  public let heads: Int
  /// Head dimension D, of keys and values.
  public let headDimension: Int
  /// How keys and values are stored.
  public let elementType: ElementType

  /// - Throws: ``/LongspanKernels/LongspanError`` unless each size is positive and the head dimension a multiple of 8,
  ///   as attention asks.
  public init(
    layers: Int, firstLayer: Int = 0, heads: Int, headDimension: Int, elementType: ElementType = .f32
  ) throws(LongspanError) {
    guard firstLayer >= 0 else {
      throw LongspanError(.badShape, "a cache whose first layer is \(firstLayer): it must be 0 or above")
    }
    guard layers > 0, heads > 0, headDimension > 0, headDimension % 8 == 0 else {
      throw LongspanError(
        .badShape,
        "a cache of \(layers) layers and \(heads) heads of \(headDimension): each must be positive and the head "
          + "dimension a multiple of 8")
    }
    let (width, overflow) = heads.multipliedReportingOverflow(by: headDimension)
    let (pairs, overflowPairs) = layers.multipliedReportingOverflow(by: 2 * elementType.byteCount)
    guard !overflow, !overflowPairs, !width.multipliedReportingOverflow(by: pairs).overflow else {
      throw LongspanError(
        .overflow, "a cache of \(layers) layers and \(heads) heads of \(headDimension) is too large")
    }
    self.layers = layers
    self.firstLayer = firstLayer
    self.heads = heads
    self.headDimension = headDimension
    self.elementType = elementType
  }

  /// Bytes of a key, or of a value, of one head.
  var rowBytes: Int { headDimension * elementType.byteCount }
  /// Bytes of a token's keys and values in all layers.
  public var bytesPerToken: Int { layers * layerBytesPerToken }
  /// Bytes of a token's keys and values in one layer.
  var layerBytesPerToken: Int { 2 * heads * rowBytes }
}

/// How a model turns keys by their positions, which a cache needs to know to move keys to other positions.
public struct RotaryEmbedding: Sendable, Equatable {
  /// Which channels of a head turn together.
  public let layout: RotaryLayout
  /// Radians a token of each pair of channels.
  public let inverseFrequencies: [Float]

  /// An embedding that turns as many pairs of channels as there are frequencies.
  public init(layout: RotaryLayout, inverseFrequencies: [Float]) {
    self.layout = layout
    self.inverseFrequencies = inverseFrequencies
  }
}
