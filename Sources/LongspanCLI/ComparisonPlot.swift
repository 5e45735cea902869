import Foundation
import LongspanKernels

/// Perplexity against bytes of the cache as SVG, a labelled point for each policy. Bytes begin at 0; perplexities span the
/// range of the points, because their differences are small.
struct ComparisonPlot {
  struct Point {
    let label: String
    let bytes: Int
    let perplexity: Double
  }

  private let points: [Point]
  private let title: String

  private static let width = 860.0
  private static let height = 420.0
  private static let left = 72.0
  private static let right = 24.0
  private static let top = 44.0
  private static let bottom = 52.0
  private static let labelHeight = 15.0

  /// Points whose perplexity is not a finite number have no place and are left out.
  init(points: [Point], title: String) {
    self.points = points.filter(\.perplexity.isFinite)
    self.title = title
  }

  func write(to path: String) throws(LongspanError) {
    try OutputFile.write(svg, to: path)
  }

  var svg: String {
    let (unit, unitName) = Self.unit(of: points.map(\.bytes).max() ?? 0)
    let xTicks = Self.ticks(from: 0, to: Double(points.map(\.bytes).max() ?? 1) / unit)
    let values = points.map(\.perplexity)
    let yTicks = Self.ticks(from: values.min() ?? 0, to: values.max() ?? 1)
    func x(_ value: Double) -> Double { Self.place(value, xTicks, Self.left, Self.width - Self.right) }
    func y(_ value: Double) -> Double { Self.place(value, yTicks, Self.height - Self.bottom, Self.top) }
    var parts = [
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 \(Int(Self.width)) \(Int(Self.height))\" "
        + "font-family=\"sans-serif\" font-size=\"12\">",
      "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>",
      text(title, Self.left, 24, "start", "font-size=\"15\""),
    ]
    for tick in xTicks.values {
      parts.append(line(x(tick), x(tick), Self.top, Self.height - Self.bottom))
      parts.append(text(xTicks.label(tick), x(tick), Self.height - Self.bottom + 18, "middle"))
    }
    for tick in yTicks.values {
      parts.append(line(Self.left, Self.width - Self.right, y(tick), y(tick)))
      parts.append(text(yTicks.label(tick), Self.left - 8, y(tick) + 4, "end"))
    }
    parts.append(text("cache, \(unitName)", Self.width / 2, Self.height - 12, "middle"))
    parts.append(
      text(
        "perplexity", 16, Self.height / 2, "middle", "transform=\"rotate(-90 16 \(Int(Self.height / 2)))\""))
    let labels = Self.labels(points.map { ($0.label, x(Double($0.bytes) / unit), y($0.perplexity)) })
    for label in labels {
      parts.append("<g class=\"point\">")
      parts.append(
        "<circle cx=\"\(decimal(label.pointX, 1))\" cy=\"\(decimal(label.pointY, 1))\" r=\"4.5\" fill=\"#1f77b4\"/>"
      )
      if label.y > label.pointY + 1 {
        parts.append(line(label.pointX, label.x, label.pointY, label.y, "#1f77b4"))
      }
      parts.append(text(label.text, label.x, label.y + 4, label.isRight ? "start" : "end"))
      parts.append("</g>")
    }
    return (parts + ["</svg>"]).joined(separator: "\n") + "\n"
  }

  private func line(
    _ x1: Double, _ x2: Double, _ y1: Double, _ y2: Double, _ color: String = "#ddd"
  ) -> String {
    "<line x1=\"\(decimal(x1, 1))\" x2=\"\(decimal(x2, 1))\" y1=\"\(decimal(y1, 1))\" y2=\"\(decimal(y2, 1))\" "
      + "stroke=\"\(color)\"/>"
  }

  private func text(
    _ text: String, _ x: Double, _ y: Double, _ anchor: String, _ attributes: String = ""
  ) -> String {
    "<text x=\"\(decimal(x, 1))\" y=\"\(decimal(y, 1))\" text-anchor=\"\(anchor)\""
      + (attributes.isEmpty ? "" : " \(attributes)") + ">\(text.escapedForXML)</text>"
  }

  // MARK: - Geometry

  /// Ticks at whole multiples of a step, with the decimals that tell them apart.
  struct Ticks {
    let values: [Double]
    let digits: Int

    func label(_ value: Double) -> String {
      abs(value) < 1e6 ? decimal(value, digits) : String(format: "%.4g", value)
    }
  }

  /// Ticks around a range, which is widened where it is a point: steps of 1, 2 or 5 times a power of ten.
  static func ticks(from least: Double, to most: Double) -> Ticks {
    let room = most > least ? 0 : max(abs(most) * 0.05, 0.5)
    let (low, high) = (least - (least > 0 ? room : 0), most + room)
    // never so small that the numbers of ticks would not be whole
    let rough = max((high - low) / 5, abs(high) * 1e-9)
    let power = floor(log10(rough))
    let step = [1.0, 2, 5, 10].map { $0 * pow(10, power) }.first { $0 >= rough } ?? rough
    let values = (Int((low / step).rounded(.down))...Int((high / step).rounded(.up))).map {
      Double($0) * step
    }
    return Ticks(values: values, digits: max(0, -Int(floor(log10(step * 1.000001)))))
  }

  private static func place(_ value: Double, _ ticks: Ticks, _ start: Double, _ end: Double) -> Double {
    guard let first = ticks.values.first, let last = ticks.values.last, last > first else { return start }
    return start + (value - first) / (last - first) * (end - start)
  }

  /// A point's label, beside it or, where another one is in the way, below.
  private struct Label {
    let text: String
    let pointX: Double
    let pointY: Double
    /// Whether the text begins at ``x``; if not, it ends there.
    let isRight: Bool
    let x: Double
    var y: Double

    /// Places that the text takes, by the width of wide letters.
    var extent: ClosedRange<Double> {
      let length = 7 * Double(text.count)
      return isRight ? x...x + length : x - length...x
    }
  }

  private static func labels(_ points: [(text: String, x: Double, y: Double)]) -> [Label] {
    var placed: [Label] = []
    for point in points.sorted(by: { $0.y < $1.y }) {
      // text of points on the right half would leave the picture
      let isRight = point.x < width / 2
      var label = Label(
        text: point.text, pointX: point.x, pointY: point.y, isRight: isRight, x: point.x + (isRight ? 9 : -9),
        y: point.y)
      while let other = placed.first(where: {
        $0.extent.overlaps(label.extent) && abs($0.y - label.y) < labelHeight - 0.5
      }) {
        label.y = other.y + labelHeight
      }
      placed.append(label)
    }
    return placed
  }

  private static func unit(of bytes: Int) -> (Double, String) {
    switch bytes {
    case ..<(1 << 20): (1024, "KiB")
    case ..<(10 << 30): (Double(1 << 20), "MiB")
    default: (Double(1 << 30), "GiB")
    }
  }
}
